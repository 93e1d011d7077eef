#include "sim/load.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "models/cost/clock.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

constexpr double averaging_time = clock_lag.value();

template <class Value>
std::size_t index(Value value) {
  return static_cast<std::size_t>(value);
}

// The load of a GPU during a step, averaged over what came before with weights that fade: d mean / dt = (load - mean) /
// averaging_time. The same steps follow one another, so that the step begins with the mean that it ends with.
class FadingMean {
 public:
  void add(double start, double end, double load) {
    changes_[start] += load;
    changes_[end] -= load;
  }

  // When all is added.
  void close(double step) {
    changes_[0] += 0;
    changes_[step] += 0;
    const double begin = walk(0, step) / -std::expm1(-step / averaging_time);
    walk(begin, step);
  }

  // Integral from the step's start to a time given to add().
  double integral(double time) const { return integrals_.at(time); }

 private:
  // Returns the mean at the end of the step.
  double walk(double mean, double step) {
    double load = 0, integral = 0, before = 0;
    for (const auto& [time, change] : changes_) {
      const double span = std::min(time, step) - before;
      const double faded = -std::expm1(-span / averaging_time);  // of the difference to the load
      integral += load * span + (mean - load) * averaging_time * faded;
      mean += (load - mean) * faded;
      integrals_[time] = integral;
      load += change;
      before += span;
    }
    return mean;
  }

  std::map<double, double> changes_, integrals_;
};

}  // namespace

std::vector<Load> stage_loads(const Plan& plan) {
  const LoweredSchedule schedule = plan.lowered();
  Timeline timeline(schedule);
  std::vector<Timeline::Span> spans;
  const double step = timeline.evaluate(step_costs(plan), spans).value();
  std::vector<Load> loads(plan.stages.size());
  if (step <= 0) return loads;
  const std::vector<int> gpus = gpus_of(plan.cluster);
  const auto size = [&](DeviceId device) {
    const DeviceType& type = plan.cluster.type_of(device);
    return type.is_slice() ? type.multiprocessors : 1;
  };
  std::vector<double> whole(index(*std::max_element(gpus.begin(), gpus.end()) + 1));  // multiprocessors
  for (std::size_t device = 0; device < gpus.size(); ++device) {
    whole[index(gpus[device])] += size(DeviceId{static_cast<std::int32_t>(device)});
  }
  std::vector<FadingMean> means(whole.size());
  const auto for_each_computation = [&](std::size_t replica, auto&& body) {
    std::size_t at = 0;
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      const DeviceId device = plan.devices[replica][rank];
      for (const Action& action : schedule.ranks[rank]) {
        const Timeline::Span& span = spans[at++];
        const bool is_computed = is_compute(action.kind) || action.kind == ActionKind::optimizer_step;
        if (is_computed) body(action, device, span.start.value(), span.end.value());
      }
    }
  };
  for (std::size_t replica = 0; replica < plan.devices.size(); ++replica) {
    for_each_computation(replica, [&](const Action&, DeviceId device, double start, double end) {
      const std::size_t gpu = index(gpus[index(device.value)]);
      means[gpu].add(start, end, size(device) / whole[gpu]);
    });
  }
  for (FadingMean& mean : means) mean.close(step);
  // Of forwards and of backwards.
  struct Sums {
    double seconds[2] = {}, loads[2] = {};
  };
  std::vector<Sums> sums(plan.stages.size());
  for_each_computation(0, [&](const Action& action, DeviceId device, double start, double end) {
    if (action.kind == ActionKind::optimizer_step) return;
    const FadingMean& mean = means[index(gpus[index(device.value)])];
    Sums& of_stage = sums[index(action.stage.value)];
    const std::size_t direction = action.kind == ActionKind::forward ? 0 : 1;
    of_stage.seconds[direction] += end - start;
    of_stage.loads[direction] += mean.integral(end) - mean.integral(start);
  });
  for (std::size_t s = 0; s < loads.size(); ++s) {
    const auto load = [&](std::size_t direction) {
      const double seconds = sums[s].seconds[direction];
      return seconds > 0 ? std::clamp(sums[s].loads[direction] / seconds, 0.0, 1.0) : 1.0;
    };
    loads[s] = {load(0), load(1)};
  }
  return loads;
}

}  // namespace stagecraft
