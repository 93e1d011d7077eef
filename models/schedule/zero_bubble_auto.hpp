// ZB-1p and ZB-2p: zero-bubble schedules planned from measured times under a memory limit, by the automatic scheduler
// of Qi et al. 2024 (arXiv 2401.10241, section 3.1). Letters as torch's: what the paper calls B is I here.
//
//   zb-2p, P = 4 ranks, M = 8 micro-batches, equal times, free messages; each rank is busy from its first start on:
//
//   rank 0 | F0 F1 F2 F3 F4 F5 F6 I0 F7 W0 I1 W1 I2 W2 I3 W3 I4 W4 I5 W5 I6 W6 I7 W7 .  .  .
//   rank 1 | .  F0 F1 F2 F3 F4 I0 F5 I1 F6 I2 F7 I3 W0 I4 W1 I5 W2 I6 W3 I7 W4 W5 W6 W7 .  .
//   rank 2 | .  .  F0 F1 F2 I0 F3 I1 F4 I2 F5 I3 F6 I4 F7 I5 W0 I6 W1 I7 W2 W3 W4 W5 W6 W7 .
//   rank 3 | .  .  .  F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 F5 I5 F6 I6 F7 I7 W0 W1 W2 W3 W4 W5 W6 W7
//
// After a warm-up, every round places a forward on each rank, first to last, then an input gradient on each, last to
// first. Weight gradients go
//   - into a gap that is at least as long,
//   - into a shorter gap, when waiting instead would give this rank the largest bubble of all,
//   - before a forward that would not fit the memory otherwise.
// Three choices that no rule settles are all tried (8 schedules); the one with the shortest longest span is kept:
//   - whether the forwards before a rank's first gradient may delay it,
//   - whether a rank two or more forwards ahead of the next one may skip its forward in favour of the gradient,
//   - whether a short gap is filled also where the bubble would not be the largest.
// In the warm-up a rank runs at least one forward more than the next, so that the next one never waits for it.
//
// Memory: a forward keeps 1, its input gradient frees 21/37, its weight gradient the rest: what a transformer layer
// keeps for them in the paper's models (zero_bubble_auto.cpp has the numbers). At most P of it on a rank for zb-1p, 2P
// for zb-2p, or shape.memory_limit. A smaller limit never fails: a rank then works off its weight gradients first.
// Equal times f, i, w, free messages: zb-1p has the span of ZB-H1 for w <= f and w <= i, M (f+i+w) + (P-1)(f+i-w);
// zb-2p has no bubble, span M (f+i+w), for f = i = w and M >= 2P-1. Its makespan is (P-1) f longer: the saving needs an
// optimizer step without a barrier. The times of the paper's Table 9 give its Table 5, all four digits, by test.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Uses shape.times, shape.message and shape.memory_limit. REQUIRES: refuse_zero_bubble_auto(shape) is empty.
ComputeSchedule generate_zb_1p(const ScheduleShape& shape);
ComputeSchedule generate_zb_2p(const ScheduleShape& shape);
std::string refuse_zero_bubble_auto(const ScheduleShape& shape);

}  // namespace stagecraft
