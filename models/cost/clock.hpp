// The clock of a GPU at its power limit, which follows how busy the GPU was (docs/cost_model.md).
#pragma once

#include <cmath>

#include "models/units.hpp"

namespace stagecraft {

// The clock is that of the load's mean over the past, which counts less the longer ago it was, with this time constant.
// Of clocks of an H200 within the steps of four pipelines on its slices, read a millisecond at a time, such a mean
// explains most with 0.03 to 0.045 s: 0.66 to 0.8 of their variance.
inline constexpr Seconds clock_lag(0.04);

// Mean of that load while a device computes that computes for `busy` and rests for `rest`, over and over: the integral
// over the busy part of d mean / dt = (1 - mean) / lag there and -mean / lag in the rest. REQUIRES: busy > 0, rest >=
// 0.
inline double load_between_rests(Seconds busy, Seconds rest) {
  const double b = busy / clock_lag, r = rest / clock_lag;
  const double at_start = std::exp(-r) * std::expm1(-b) / std::expm1(-b - r);
  return 1 + (1 - at_start) * std::expm1(-b) / b;
}

}  // namespace stagecraft
