#include "models/error.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {

DevicePlace device_place(const Plan& plan, int replica, int rank) {
  const DeviceId wanted = plan.devices[static_cast<std::size_t>(replica)][static_cast<std::size_t>(rank)];
  DevicePlace place;
  bool found = false;
  int gpu = -1, used = 0;
  std::vector<int> slices;  // of the GPU at hand
  for (const DeviceId device : plan.cluster.node_of(wanted).devices) {
    const DeviceType& type = plan.cluster.type_of(device);
    const bool fits = type.is_slice() && !slices.empty() && used + type.multiprocessors <= type.gpu_multiprocessors;
    if (!fits) {
      if (found) break;
      ++gpu;
      used = 0;
      slices.clear();
    }
    if (type.is_slice()) {
      used += type.multiprocessors;
      slices.push_back(type.multiprocessors);
    }
    if (device == wanted) {
      found = true;
      place.gpu = gpu;
      place.slice = static_cast<int>(slices.size()) - (type.is_slice() ? 1 : 0);
    }
    if (found) place.slices = slices;
  }
  return place;
}

}  // namespace stagecraft::cuda
