// The same job on several numbers of devices.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace stagecraft {

struct ScalePoint {
  int devices = 0;
  std::int64_t batch = 0;  // samples a step
};
// With `weak` the batch grows with the devices, from `batch` on the first number of them. Throws bad_input for batches
// that do not come out whole and for more than `usable` devices. REQUIRES: at least one number.
std::vector<ScalePoint> scale_points(std::span<const int> devices, std::int64_t batch, bool weak, std::int64_t usable);

}  // namespace stagecraft
