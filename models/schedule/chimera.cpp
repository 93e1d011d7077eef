#include "models/schedule/chimera.hpp"

#include <cassert>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"
#include "models/schedule/two_way_waves.hpp"

namespace stagecraft {

std::string refuse_chimera(const ScheduleShape& shape) {
  return first_refusal({refuse_all_but(1, shape), refuse_odd_ranks(shape), refuse_odd_microbatches(shape)});
}

ComputeSchedule generate_chimera(const ScheduleShape& shape) {
  assert(refuse_chimera(shape).empty());
  return two_way_waves("chimera", shape);
}

}  // namespace stagecraft
