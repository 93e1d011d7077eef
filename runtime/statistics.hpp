// Medians and spreads of what profilers measure.
#pragma once

#include <vector>

#include "models/profile.hpp"

namespace stagecraft {

// Median, 10th and 90th percentile of seconds; all zero when there are none.
Measured measured(const std::vector<double>& samples);
Measured scaled(Measured time, double factor);

}  // namespace stagecraft
