#include "models/cost/profiled.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
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

// How the clock of a GPU follows its load, and times the clock. `measured`: of one kind of layer and recompute mode.
class Clock {
 public:
  Clock(const std::vector<const LayerProfile*>& measured, std::int64_t microbatch) : microbatch_(microbatch) {
    for (const LayerProfile* profile : measured) {
      const Point point{of(*profile, &LayerSample::load), of(*profile, &LayerSample::clock), profile};
      if (point.clock == 0) continue;
      points_.push_back(point);
      for (const LayerSample& sample : profile->samples) highest_ = std::max(highest_, sample.clock);
    }
  }

  bool is_known() const { return points_.size() > 1; }

  // Hz at a load: not below that of a busy GPU, nor above the highest that was ever measured. REQUIRES: is_known().
  double at_load(double load) const { return std::clamp(guess(load), std::min(guess(1), highest_), highest_); }

  // A time that was measured under a condition, at a load; `value` picks it from a sample. Times of the condition's
  // neighbours, with rests and without, say how it goes with the clock: as a power, which is 1 where nothing but the
  // multiprocessors counts and 0 where nothing but memory does.
  template <class Value>
  double relative(const LayerProfile& condition, const LayerProfile& steady, double load, Value value) const {
    const double clock = of(condition, &LayerSample::clock);
    if (!is_known() || clock == 0) return 1;
    return std::pow(clock / at_load(load), power(steady, value));
  }

 private:
  struct Point {
    double load = 1, clock = 0;
    const LayerProfile* profile = nullptr;
  };

  // A GPU at its power limit hunts for its clock by some percent for about a second, so that each measured one is a
  // guess: the value at the load of the line that fits those of loads nearby best.
  double guess(double load) const {
    constexpr double nearby = 0.45, elsewhere = 1e-3;
    const auto least = std::min_element(points_.begin(), points_.end(),
                                        [](const Point& a, const Point& b) { return a.load < b.load; });
    const double centre = std::max(load, least->load);
    double weights = 0, loads = 0, clocks = 0, products = 0, squares = 0;
    const auto for_each_weighted = [&](auto&& body) {
      for (const Point& point : points_) {
        body(point, std::max(1 - std::abs(point.load - centre) / nearby, 0.0) + elsewhere);
      }
    };
    for_each_weighted([&](const Point& point, double weight) {
      weights += weight;
      loads += weight * point.load;
      clocks += weight * point.clock;
    });
    loads /= weights, clocks /= weights;
    for_each_weighted([&](const Point& point, double weight) {
      products += weight * (point.load - loads) * (point.clock - clocks);
      squares += weight * (point.load - loads) * (point.load - loads);
    });
    const double slope = squares > 0 ? std::min(products / squares, 0.0) : 0.0;
    return clocks + slope * (load - loads);
  }

  double of(const LayerProfile& profile, double LayerSample::*field) const {
    return at(profile.samples, microbatch_, [field](const LayerSample& sample) { return sample.*field; });
  }

  // Least squares through the steady point, drawn to what pipelines have: actions meet their neighbours' at other
  // moments in them than after a rest, which times feel as much as the clock.
  template <class Value>
  double power(const LayerProfile& steady, Value value) const {
    constexpr double usual = 0.45, doubt = 0.1;  // on slices of four H200; relative
    double products = doubt * doubt * usual, squares = doubt * doubt;
    const auto time = at(steady.samples, microbatch_, value);
    for (const Point& point : points_) {
      if (point.profile->rest == 0) continue;
      const auto rested = at(point.profile->samples, microbatch_, value);
      if (!(time > Seconds(0)) || !(rested > Seconds(0))) continue;
      const double x = std::log(of(*point.profile, &LayerSample::clock) / of(steady, &LayerSample::clock));
      products += x * std::log(time / rested);
      squares += x * x;
    }
    return std::clamp(products / squares, 0.0, 1.0);
  }

  std::int64_t microbatch_;
  std::vector<Point> points_;
  double highest_ = 0;
};

template <class Is>
bool any_sample(const Profile& profile, Is is) {
  return std::any_of(profile.layers.begin(), profile.layers.end(), [&](const LayerProfile& measured) {
    return std::any_of(measured.samples.begin(), measured.samples.end(), is);
  });
}

}  // namespace

// Of several numbers of busy neighbours the nearest one; of all of them where the workload does not say.
const LayerProfile& ProfiledCostModel::find(const Layer& layer, const Workload& workload) const {
  const LayerProfile* best = nullptr;
  const auto distance = [&](const LayerProfile& measured) {
    return std::abs(measured.busy_neighbours - workload.busy_neighbours.value_or(most_neighbours(profile_.device)));
  };
  for (const LayerProfile& measured : profile_.layers) {
    if (measured.kind != layer.kind || measured.recompute != workload.recompute) continue;
    if (measured.rest > 0 || measured.beside_forwards) continue;
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

const LayerProfile* ProfiledCostModel::find_beside_forwards(const Layer& layer, const Workload& workload) const {
  if (!workload.beside_forwards) return nullptr;
  for (const LayerProfile& measured : profile_.layers) {
    const bool is_it = measured.beside_forwards && measured.kind == layer.kind &&
                       measured.recompute == workload.recompute && measured.rest == 0;
    if (is_it) return &measured;
  }
  return nullptr;
}

std::vector<const LayerProfile*> ProfiledCostModel::find_all(const Layer& layer, const Workload& workload) const {
  std::vector<const LayerProfile*> all;
  for (const LayerProfile& measured : profile_.layers) {
    if (measured.beside_forwards) continue;
    if (measured.kind == layer.kind && measured.recompute == workload.recompute) all.push_back(&measured);
  }
  return all;
}

bool ProfiledCostModel::knows(Recompute recompute) const {
  return std::all_of(profile_.layers.begin(), profile_.layers.end(), [&](const LayerProfile& any) {
    return std::any_of(profile_.layers.begin(), profile_.layers.end(), [&](const LayerProfile& measured) {
      return measured.kind == any.kind && measured.recompute == recompute && measured.rest == 0 &&
             !measured.beside_forwards;
    });
  });
}

bool ProfiledCostModel::heeds_load() const {
  return any_sample(profile_, [](const LayerSample& sample) { return sample.clock > 0; });
}

bool ProfiledCostModel::heeds_microbatches() const {
  return any_sample(profile_, [](const LayerSample& sample) { return sample.first_backward.has_value(); });
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
  const LayerProfile& usual = find(layer, workload);
  const LayerProfile* const beside_forwards = find_beside_forwards(layer, workload);
  const LayerProfile& measured = beside_forwards != nullptr ? *beside_forwards : usual;
  const Clock clock(find_all(layer, workload), workload.microbatch);
  const LayerProfile& steady = find(layer, beside_all(workload));
  const auto time = [&](double load, auto value) {
    return at(measured.samples, workload.microbatch, value) * clock.relative(measured, steady, load, value);
  };
  const Seconds forward = time(workload.load.forward, [](const LayerSample& sample) { return sample.forward.median; });
  const auto backward = [&](Measured LayerSample::*field) {
    return time(workload.load.backward, [field](const LayerSample& sample) { return (sample.*field).median; });
  };
  const auto bytes = [&](Bytes LayerSample::*field) {
    return at(measured.samples, workload.microbatch, [&](const LayerSample& sample) { return sample.*field; });
  };
  const auto whole = [](const LayerSample& sample) {
    return sample.backward ? sample.backward->median : sample.backward_input.median + sample.backward_weight.median;
  };
  const Seconds input = backward(&LayerSample::backward_input), weight = backward(&LayerSample::backward_weight);
  const Seconds saving = std::max(input + weight - time(workload.load.backward, whole), Seconds(0));
  Seconds of_first;  // more than the others take, mostly below zero
  if (workload.microbatches > 0) {
    const Seconds first = at(measured.samples, workload.microbatch, [&](const LayerSample& sample) {
      return sample.first_backward ? sample.first_backward->median : whole(sample);
    });
    of_first =
        (first - at(measured.samples, workload.microbatch, whole)) *
        (clock.relative(measured, steady, workload.load.backward, whole) / static_cast<double>(workload.microbatches));
  }
  const ParameterBytes each = parameter_bytes(workload.precision, workload.optimizer);
  const auto parameters = static_cast<double>(layer.parameters);
  return {.forward = forward,
          .recompute = backward(&LayerSample::recompute),
          .backward_input = input,
          .backward_weight = std::max(weight + of_first, saving),
          .backward_saving = saving,
          .optimizer = usual.optimizer.median,
          .weights = each.weight * parameters,
          .gradients = each.gradient * parameters,
          .optimizer_state = each.optimizer_state * parameters,
          .stash = bytes(&LayerSample::stash),
          .split = bytes(&LayerSample::split),
          .workspace = bytes(&LayerSample::workspace)};
}

}  // namespace stagecraft
