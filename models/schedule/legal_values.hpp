// What a generator's refusal says of the values it would take.
#pragma once

#include <fmt/format.h>

#include <string>

namespace stagecraft {

// The multiples of `step`, not below `least`, on either side of `value`, which is none: "4 or 6", or one of them.
inline std::string nearest_multiples(int value, int step, int least) {
  const int below = value / step * step;
  const int above = below + step;
  if (below < least) return fmt::format("{}", above < least ? (least + step - 1) / step * step : above);
  return fmt::format("{} or {}", below, above);
}

}  // namespace stagecraft
