#include "models/schedule/legal_values.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string nearest_multiples(int value, int step, int least) {
  const int below = value / step * step;
  return below < least ? fmt::format("{}", std::max(least, below + step))
                       : fmt::format("{} or {}", below, below + step);
}

std::string refuse_all_but(int stages, const ScheduleShape& shape) {
  return first_refusal({refuse_stages_per_rank(shape, stages), refuse_group(shape), refuse_slices(shape)});
}

std::string refuse_odd_ranks(const ScheduleShape& shape, int least) {
  if (shape.ranks >= least && shape.ranks % 2 == 0) return "";
  const std::string at_least = least > 2 ? fmt::format(", at least {}", least) : "";
  return fmt::format("needs an even number of ranks{}, got {}; nearest: {}", at_least, shape.ranks,
                     nearest_multiples(shape.ranks, 2, least));
}

std::string refuse_odd_microbatches(const ScheduleShape& shape, int least) {
  if (shape.microbatches >= least && shape.microbatches % 2 == 0) return "";
  const std::string at_least = least > 2 ? fmt::format(", at least {}", least) : "";
  return fmt::format("needs an even number of micro-batches, half for each direction{}, got {}; nearest: {}", at_least,
                     shape.microbatches, nearest_multiples(shape.microbatches, 2, least));
}

std::string refuse_memory_below(int least, const ScheduleShape& shape) {
  if (shape.memory_limit <= 0 || shape.memory_limit >= least) return "";
  return fmt::format("needs memory for at least {} micro-batch{} a rank, got {}", least, least == 1 ? "" : "es",
                     shape.memory_limit);
}

}  // namespace stagecraft
