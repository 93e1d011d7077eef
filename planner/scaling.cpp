#include "planner/scaling.hpp"

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {

std::vector<ScalePoint> scale_points(std::span<const int> devices, std::int64_t batch, bool weak, std::int64_t usable) {
  std::vector<ScalePoint> points;
  const std::int64_t base = devices.front();
  for (const int count : devices) {
    if (weak && batch * count % base != 0) {
      throw bad_input("--weak: {} on {} do not scale to {}", counted(batch, "sample"), counted(base, "device"), count);
    }
    if (count > usable) {
      throw bad_input("--scaling: expected at most the {} that can be used, got {}", counted(usable, "device"), count);
    }
    points.push_back({count, weak ? batch * count / base : batch});
  }
  return points;
}

}  // namespace stagecraft
