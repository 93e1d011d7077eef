#include "models/cost/profiled.hpp"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <utility>

#include "models/cost/memory.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// The two samples whose line gives the value at `microbatch`, and its position on it: 0 at the first, 1 at the second.
struct Position {
  const LayerSample* first;
  const LayerSample* second;
  double t;
};

Position locate(const std::vector<LayerSample>& samples, std::int64_t microbatch) {
  assert(samples.size() > 1);
  auto second = std::lower_bound(samples.begin() + 1, samples.end() - 1, microbatch,
                                 [](const LayerSample& sample, std::int64_t m) { return sample.microbatch < m; });
  const auto first = second - 1;
  return {&*first, &*second,
          static_cast<double>(microbatch - first->microbatch) /
              static_cast<double>(second->microbatch - first->microbatch)};
}

// `value` picks a quantity of a sample.
template <class Value>
auto at(const std::vector<LayerSample>& samples, std::int64_t microbatch, Value value) {
  using Result = decltype(value(samples.front()));
  if (samples.size() == 1) {
    return value(samples.front()) * (static_cast<double>(microbatch) / static_cast<double>(samples[0].microbatch));
  }
  const auto [first, second, t] = locate(samples, microbatch);
  if (t == 1) return value(*second);  // exactly, without rounding
  return std::max(Result(0), value(*first) + (value(*second) - value(*first)) * t);
}

Workload beside_all(Workload workload) {
  workload.busy_neighbours.reset();
  return workload;
}

// How the clock of a GPU changes its times with its load: by what it was measured at several loads, all of it busy
// between the rests.
class Clock {
 public:
  // `rested`: by falling load.
  Clock(const LayerProfile& all, std::vector<const LayerProfile*> rested, std::int64_t microbatch)
      : all_(all), rested_(std::move(rested)), microbatch_(microbatch) {}

  // A time at a load over that of a GPU that never rests; `value` picks it from a sample.
  template <class Value>
  double relative(double load, Value value) const {
    const Seconds steady = at(all_.samples, microbatch_, value);
    double above = 1, relative = 1;  // at the measured load above
    if (steady == Seconds(0)) return relative;
    for (const LayerProfile* rested : rested_) {
      // A GPU that rests more is not slower, and not twice as fast: more is noise.
      const double next = std::clamp(at(rested->samples, microbatch_, value) / steady, relative / 2, relative);
      if (load >= rested->load) return next + (relative - next) * (load - rested->load) / (above - rested->load);
      above = rested->load;
      relative = next;
    }
    return relative;
  }

 private:
  const LayerProfile& all_;
  std::vector<const LayerProfile*> rested_;
  std::int64_t microbatch_;
};

}  // namespace

// Of several numbers of busy neighbours the nearest one; of all of them where the workload does not say.
const LayerProfile& ProfiledCostModel::find(const Layer& layer, const Workload& workload) const {
  const LayerProfile* best = nullptr;
  const auto distance = [&](const LayerProfile& measured) {
    return std::abs(measured.busy_neighbours - workload.busy_neighbours.value_or(most_neighbours(profile_.device)));
  };
  for (const LayerProfile& measured : profile_.layers) {
    if (measured.kind != layer.kind || measured.recompute != workload.recompute || measured.load < 1) continue;
    if (measured.parameters != layer.parameters) {
      throw bad_input(
          "the profile's layer kind '{}' has {} parameters, layer '{}' has {}: it is of another network ({})",
          layer.kind, measured.parameters, layer.name, layer.parameters, profile_.network);
    }
    if (best == nullptr || distance(measured) < distance(*best)) best = &measured;
  }
  if (best != nullptr) return *best;
  std::vector<std::string> known;
  for (const LayerProfile& measured : profile_.layers) {
    const std::string text = fmt::format("{} ({})", measured.kind, name(measured.recompute));
    if (std::find(known.begin(), known.end(), text) == known.end()) known.push_back(text);
  }
  throw bad_input("the profile has no layer kind '{}' with recompute {} (of layer '{}'); measured: {}", layer.kind,
                  name(workload.recompute), layer.name, join(known));
}

std::vector<const LayerProfile*> ProfiledCostModel::find_rested(const Layer& layer, const Workload& workload) const {
  std::vector<const LayerProfile*> rested;
  for (const LayerProfile& measured : profile_.layers) {
    if (measured.kind == layer.kind && measured.recompute == workload.recompute && measured.load < 1) {
      rested.push_back(&measured);
    }
  }
  std::sort(rested.begin(), rested.end(), [](const auto* a, const auto* b) { return a->load > b->load; });
  return rested;
}

bool ProfiledCostModel::knows(Recompute recompute) const {
  return std::all_of(profile_.layers.begin(), profile_.layers.end(), [&](const LayerProfile& any) {
    return std::any_of(profile_.layers.begin(), profile_.layers.end(), [&](const LayerProfile& measured) {
      return measured.kind == any.kind && measured.recompute == recompute && measured.load == 1;
    });
  });
}

bool ProfiledCostModel::heeds_load() const {
  return std::any_of(profile_.layers.begin(), profile_.layers.end(),
                     [](const LayerProfile& measured) { return measured.load < 1; });
}

Overheads ProfiledCostModel::overheads(const DeviceType&) const {
  return {profile_.action_overhead, profile_.step_overhead, profile_.kept_outputs, profile_.message_buffers};
}

LayerCost ProfiledCostModel::layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const {
  assert(workload.microbatch > 0 && workload.sequence > 0);
  const auto differs = [](std::string_view what, const auto& measured, const auto& wanted) {
    return bad_input("the profile was measured with {} {}, wanted is {}", what, measured, wanted);
  };
  if (device.name != profile_.device.name) throw differs("device type", profile_.device.name, device.name);
  if (workload.sequence != profile_.sequence) throw differs("sequence", profile_.sequence, workload.sequence);
  if (workload.precision != profile_.precision) {
    throw differs("precision", name(profile_.precision), name(workload.precision));
  }
  if (workload.optimizer != profile_.optimizer) {
    throw differs("optimizer", name(profile_.optimizer), name(workload.optimizer));
  }
  const LayerProfile& measured = find(layer, workload);
  const Clock clock(find(layer, beside_all(workload)), find_rested(layer, workload), workload.microbatch);
  // Beside few neighbours it was measured while the rest of the GPU was idle.
  const double measured_load = (measured.busy_neighbours + 1.0) / (most_neighbours(profile_.device) + 1.0);
  const auto time = [&](double load, auto value) {
    return at(measured.samples, workload.microbatch, value) *
           (clock.relative(load, value) / clock.relative(measured_load, value));
  };
  const Seconds forward = time(workload.load.forward, [](const LayerSample& sample) { return sample.forward.median; });
  const auto backward = [&](Measured LayerSample::*field) {
    return time(workload.load.backward, [field](const LayerSample& sample) { return (sample.*field).median; });
  };
  const auto bytes = [&](Bytes LayerSample::*field) {
    return at(measured.samples, workload.microbatch, [&](const LayerSample& sample) { return sample.*field; });
  };
  const Seconds parts = backward(&LayerSample::backward_input) + backward(&LayerSample::backward_weight);
  const Seconds together = time(workload.load.backward, [](const LayerSample& sample) {
    return sample.backward ? sample.backward->median : sample.backward_input.median + sample.backward_weight.median;
  });
  const ParameterBytes each = parameter_bytes(workload.precision, workload.optimizer);
  const auto parameters = static_cast<double>(layer.parameters);
  return {.forward = forward,
          .recompute = backward(&LayerSample::recompute),
          .backward_input = backward(&LayerSample::backward_input),
          .backward_weight = backward(&LayerSample::backward_weight),
          .backward_saving = std::max(parts - together, Seconds(0)),
          .optimizer = measured.optimizer.median,
          .weights = each.weight * parameters,
          .gradients = each.gradient * parameters,
          .optimizer_state = each.optimizer_state * parameters,
          .stash = bytes(&LayerSample::stash),
          .split = bytes(&LayerSample::split),
          .workspace = bytes(&LayerSample::workspace)};
}

}  // namespace stagecraft
