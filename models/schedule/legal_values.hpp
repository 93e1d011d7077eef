// More rules that several generators share (refusal.hpp), with the nearest values that keep them.
#pragma once

#include <string>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// The multiples of `step`, not below `least`, on either side of `value`, which is none of them: "4 or 6", or "6".
// REQUIRES: least is a multiple of step.
std::string nearest_multiples(int value, int step, int least);

// `stages` stages a rank, neither group nor slices.
std::string refuse_all_but(int stages, const ScheduleShape& shape);
// For two pipelines in opposite directions. `least` micro-batches or ranks are needed anyway.
std::string refuse_odd_ranks(const ScheduleShape& shape, int least = 2);
std::string refuse_odd_microbatches(const ScheduleShape& shape, int least = 2);
// A memory limit, if there is one, of at least `least` micro-batches.
std::string refuse_memory_below(int least, const ScheduleShape& shape);

}  // namespace stagecraft
