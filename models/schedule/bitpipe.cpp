#include "models/schedule/bitpipe.hpp"

#include <fmt/format.h>

#include <cassert>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"
#include "models/schedule/two_way_waves.hpp"

namespace stagecraft {

std::string refuse_bitpipe(const ScheduleShape& shape) {
  std::string refusal = first_refusal({refuse_all_but(2, shape), refuse_odd_ranks(shape, 4)});
  if (!refusal.empty() || shape.microbatches % shape.ranks == 0) return refusal;
  return fmt::format("needs a multiple of P = {} micro-batches, got {}; nearest: {}", shape.ranks, shape.microbatches,
                     nearest_multiples(shape.microbatches, shape.ranks, shape.ranks));
}

ComputeSchedule generate_bitpipe(const ScheduleShape& shape) {
  assert(refuse_bitpipe(shape).empty());
  return two_way_waves("bitpipe", shape);
}

}  // namespace stagecraft
