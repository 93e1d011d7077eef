// The Pareto front over numbers of devices.
#include <algorithm>
#include <tuple>

#include "models/error.hpp"
#include "planner/layout_search.hpp"

namespace stagecraft {

std::vector<JudgedLayout> pareto_front(const LayoutSpace& space, double tolerance) {
  std::vector<JudgedLayout> all;
  for (LayoutChoices choices = space.choices(); choices.devices > 0; choices.devices /= 2) {
    try {
      const LayoutResult result =
          search_layouts(LayoutSpace(space.model(), choices),
                         {.keep = 1, .near_misses = 0, .front = true, .front_tolerance = tolerance});
      all.insert(all.end(), result.best.begin(), result.best.end());
      all.insert(all.end(), result.front.begin(), result.front.end());
    } catch (const Error&) {  // what is fixed needs more devices
      break;
    }
  }
  const auto numbers = [](const JudgedLayout& point) {
    return std::tuple(point.layout.devices(), point.estimate.time.value(), point.estimate.memory.total());
  };
  std::vector<JudgedLayout> front;
  for (const JudgedLayout& point : all) {
    const auto [devices, time, memory] = numbers(point);
    const bool is_beaten =
        std::any_of(all.begin(), all.end(), [&, d = devices, t = time, m = memory](const auto& other) {
          const auto [its_devices, its_time, its_memory] = numbers(other);
          return its_devices <= d && its_time <= t && its_memory <= m &&
                 std::tuple(its_devices, its_time, its_memory) < std::tuple(d, t, m);
        });
    const bool is_there = std::any_of(front.begin(), front.end(),
                                      [&](const JudgedLayout& other) { return other.layout == point.layout; });
    if (!is_beaten && !is_there) front.push_back(point);
  }
  std::stable_sort(front.begin(), front.end(), [&](const JudgedLayout& a, const JudgedLayout& b) {
    const auto [a_devices, a_time, a_memory] = numbers(a);
    const auto [b_devices, b_time, b_memory] = numbers(b);
    return std::tuple(-a_devices, a_time, a_memory) < std::tuple(-b_devices, b_time, b_memory);
  });
  return front;
}

}  // namespace stagecraft
