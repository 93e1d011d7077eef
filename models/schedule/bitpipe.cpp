#include "models/schedule/bitpipe.hpp"

#include <fmt/format.h>

#include <cassert>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/two_way_waves.hpp"

namespace stagecraft {

std::string refuse_bitpipe(const ScheduleShape& shape) {
  if (shape.stages_per_rank != 2) {
    return fmt::format("needs two stages a rank (of each of the two pipelines), got {}", shape.stages_per_rank);
  }
  if (shape.ranks % 2 != 0 || shape.ranks < 4) {
    return fmt::format("needs an even number of ranks, at least 4, got {}; nearest: {}", shape.ranks,
                       nearest_multiples(shape.ranks, 2, 4));
  }
  if (shape.microbatches % shape.ranks != 0) {
    return fmt::format("needs a multiple of {} micro-batches, one for each rank, got {}; nearest: {}", shape.ranks,
                       shape.microbatches, nearest_multiples(shape.microbatches, shape.ranks, shape.ranks));
  }
  return "";
}

ComputeSchedule generate_bitpipe(const ScheduleShape& shape) {
  assert(refuse_bitpipe(shape).empty());
  return two_way_waves("bitpipe", shape);
}

}  // namespace stagecraft
