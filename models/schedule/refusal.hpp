// Rules that several generators share, as reasons to refuse a shape: each is empty when the shape keeps the rule.
#pragma once

#include <string>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// For generators that plan neither with groups nor with token slices: asking for them would silently do nothing.
std::string refuse_group(const ScheduleShape& shape);
std::string refuse_slices(const ScheduleShape& shape);

// Exactly `stages` stages a rank.
std::string refuse_stages_per_rank(const ScheduleShape& shape, int stages);

// The first that is not empty, or empty.
std::string first_refusal(std::initializer_list<std::string> refusals);

// What most schedules ask: one stage a rank, neither group nor slices.
std::string refuse_all_but_plain(const ScheduleShape& shape);

// torch's interleaved schedules run max(1, M / P) rounds of equally many micro-batches: M must be a multiple of the
// number of rounds. Names the nearest M below and above that are.
std::string refuse_unequal_rounds(const ScheduleShape& shape);
// Micro-batches of one such round. REQUIRES: refuse_unequal_rounds(shape) is empty.
int microbatches_per_round(const ScheduleShape& shape);

}  // namespace stagecraft
