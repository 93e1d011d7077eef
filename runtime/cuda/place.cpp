#include "models/error.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {

DevicePlace device_place(const Plan& plan, int row, int rank) {
  const DeviceId wanted = plan.devices[static_cast<std::size_t>(row)][static_cast<std::size_t>(rank)];
  const std::vector<int> gpus = gpus_of(plan.cluster);
  const auto gpu_of = [&](DeviceId device) { return gpus[static_cast<std::size_t>(device.value)]; };
  const std::vector<DeviceId>& neighbours = plan.cluster.node_of(wanted).devices;
  DevicePlace place;
  place.gpu = gpu_of(wanted) - gpu_of(neighbours.front());
  if (!plan.cluster.type_of(wanted).is_slice()) return place;
  for (const DeviceId device : neighbours) {
    if (gpu_of(device) != gpu_of(wanted)) continue;
    if (device == wanted) place.slice = static_cast<int>(place.slices.size());
    place.slices.push_back(plan.cluster.type_of(device).multiprocessors);
  }
  return place;
}

}  // namespace stagecraft::cuda
