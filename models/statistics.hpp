// Order statistics of what was measured or predicted.
#pragma once

#include <vector>

namespace stagecraft {

// The value below which `share` of the values lie: interpolated between the two nearest, as numpy does by default.
// REQUIRES: not empty, no NaN; 0 <= share <= 1.
double percentile(std::vector<double> values, double share);
// percentile(values, 0.5): of an even number of values the mean of the middle two.
double median(std::vector<double> values);

}  // namespace stagecraft
