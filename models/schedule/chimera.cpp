#include "models/schedule/chimera.hpp"

#include <fmt/format.h>

#include <cassert>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/two_way_waves.hpp"

namespace stagecraft {

std::string refuse_chimera(const ScheduleShape& shape) {
  if (shape.stages_per_rank != 1) return fmt::format("needs one stage a rank, got {}", shape.stages_per_rank);
  if (shape.ranks % 2 != 0) {
    return fmt::format("needs an even number of ranks, got {}; nearest: {}", shape.ranks,
                       nearest_multiples(shape.ranks, 2, 2));
  }
  if (shape.microbatches % 2 != 0) {
    return fmt::format("needs an even number of micro-batches, half for each direction, got {}; nearest: {}",
                       shape.microbatches, nearest_multiples(shape.microbatches, 2, 2));
  }
  return "";
}

ComputeSchedule generate_chimera(const ScheduleShape& shape) {
  assert(refuse_chimera(shape).empty());
  return two_way_waves("chimera", shape);
}

}  // namespace stagecraft
