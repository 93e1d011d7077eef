#include "sim/load.hpp"

#include <algorithm>

#include "sim/timeline.hpp"

namespace stagecraft {

std::vector<double> stage_loads(const Plan& plan) {
  Timeline timeline(plan.lowered());
  const double step = timeline.makespan(step_costs(plan)).value();
  const std::vector<Seconds> busy = timeline.busy();
  const std::vector<int> gpus = gpus_of(plan.cluster);
  const auto index = [](auto value) { return static_cast<std::size_t>(value); };
  const auto size = [&](DeviceId device) {
    const DeviceType& type = plan.cluster.type_of(device);
    return type.is_slice() ? type.multiprocessors : 1;
  };
  const auto count = index(*std::max_element(gpus.begin(), gpus.end()) + 1);
  std::vector<double> whole(count), computed(count);  // multiprocessors; multiprocessors x seconds
  for (std::size_t device = 0; device < gpus.size(); ++device) {
    whole[index(gpus[device])] += size(DeviceId{static_cast<std::int32_t>(device)});
  }
  for (const std::vector<DeviceId>& row : plan.devices) {
    for (std::size_t rank = 0; rank < row.size(); ++rank) {
      computed[index(gpus[index(row[rank].value)])] += busy[rank].value() * size(row[rank]);
    }
  }
  std::vector<double> loads;
  for (const PlanStage& stage : plan.stages) {
    const std::size_t gpu = index(gpus[index(plan.devices.front()[index(stage.rank.value)].value)]);
    loads.push_back(step > 0 ? std::min(1.0, computed[gpu] / (whole[gpu] * step)) : 1.0);
  }
  return loads;
}

}  // namespace stagecraft
