#include "models/statistics.hpp"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>

namespace stagecraft {

double percentile(std::vector<double> values, double share) {
  assert(!values.empty() && share >= 0 && share <= 1);
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<std::ptrdiff_t>(position);
  std::nth_element(values.begin(), below, values.end());
  if (below + 1 == values.end()) return *below;
  const double above = *std::min_element(below + 1, values.end());
  return *below + (position - static_cast<double>(below - values.begin())) * (above - *below);
}

double median(std::vector<double> values) { return percentile(std::move(values), 0.5); }

}  // namespace stagecraft
