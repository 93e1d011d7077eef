#include "models/cost/profiled.hpp"

#include <algorithm>
#include <cassert>
#include <cstdlib>

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

// What a time is multiplied by because the GPU does not compute all the time. The clock falls with all that the GPU
// computes: beside k of n neighbours by k / n of what it falls beside all of them.
class RestedGain {
 public:
  RestedGain(const LayerProfile& measured, const LayerProfile& all, const LayerProfile* rested,
             const Workload& workload, int most_neighbours)
      : all_(all), rested_(rested), microbatch_(workload.microbatch) {
    if (rested == nullptr) return;
    weight_ = std::clamp((1 - workload.load) / (1 - rested->load), 0.0, 1.0);
    if (most_neighbours > 0) weight_ *= static_cast<double>(measured.busy_neighbours) / most_neighbours;
  }

  // `value` picks a time of a sample.
  template <class Value>
  double operator()(Value value) const {
    if (weight_ == 0) return 1;
    const Seconds steady = at(all_.samples, microbatch_, value);
    if (steady == Seconds(0)) return 1;
    // A GPU that rests is not slower: more is noise.
    return 1 + weight_ * std::min(0.0, at(rested_->samples, microbatch_, value) / steady - 1);
  }

 private:
  const LayerProfile& all_;
  const LayerProfile* rested_;
  std::int64_t microbatch_;
  double weight_ = 0;  // of the rested times against those without rest
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

const LayerProfile* ProfiledCostModel::find_rested(const Layer& layer, const Workload& workload) const {
  const LayerProfile* best = nullptr;
  for (const LayerProfile& measured : profile_.layers) {
    if (measured.kind != layer.kind || measured.recompute != workload.recompute || measured.load == 1) continue;
    if (best == nullptr || measured.load < best->load) best = &measured;
  }
  return best;
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
  return {profile_.action_overhead, profile_.step_overhead, profile_.kept_outputs, profile_.outgoing_gradients};
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
  const RestedGain gain(measured, find(layer, beside_all(workload)), find_rested(layer, workload), workload,
                        most_neighbours(profile_.device));
  const auto time = [&](auto value) { return at(measured.samples, workload.microbatch, value) * gain(value); };
  const auto median = [&](Measured LayerSample::*field) {
    return time([field](const LayerSample& sample) { return (sample.*field).median; });
  };
  const auto bytes = [&](Bytes LayerSample::*field) {
    return at(measured.samples, workload.microbatch, [&](const LayerSample& sample) { return sample.*field; });
  };
  const Seconds parts = median(&LayerSample::backward_input) + median(&LayerSample::backward_weight);
  const Seconds together = time([](const LayerSample& sample) {
    return sample.backward ? sample.backward->median : sample.backward_input.median + sample.backward_weight.median;
  });
  const ParameterBytes each = parameter_bytes(workload.precision, workload.optimizer);
  const auto parameters = static_cast<double>(layer.parameters);
  return {.forward = median(&LayerSample::forward),
          .recompute = median(&LayerSample::recompute),
          .backward_input = median(&LayerSample::backward_input),
          .backward_weight = median(&LayerSample::backward_weight),
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
