#include "runtime/statistics.hpp"

#include <algorithm>

namespace stagecraft {

Measured measured(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    const double position = share * static_cast<double>(samples.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, samples.size() - 1);
    return Seconds(samples[below] + (position - static_cast<double>(below)) * (samples[above] - samples[below]));
  };
  if (samples.empty()) return {};
  return {at(0.5), at(0.1), at(0.9), static_cast<int>(samples.size())};
}

Measured scaled(Measured time, double factor) {
  return {time.median * factor, time.low * factor, time.high * factor, time.count};
}

}  // namespace stagecraft
