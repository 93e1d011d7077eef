#include "runtime/statistics.hpp"

#include "models/statistics.hpp"

namespace stagecraft {

Measured measured(const std::vector<double>& samples) {
  if (samples.empty()) return {};
  return {Seconds(median(samples)), Seconds(percentile(samples, 0.1)), Seconds(percentile(samples, 0.9)),
          static_cast<int>(samples.size())};
}

Measured scaled(Measured time, double factor) {
  return {time.median * factor, time.low * factor, time.high * factor, time.count};
}

}  // namespace stagecraft
