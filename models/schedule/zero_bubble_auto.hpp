// ZB-1p and ZB-2p: zero-bubble schedules planned from measured times under a memory limit, by the automatic scheduler
// of Qi et al. 2024 (arXiv 2401.10241, section 3.1). The letters here are torch's: their B is our I.
//
//   zb-1p, P = 4 ranks, M = 6 micro-batches, equal times, free messages, at most P micro-batches a rank:
//
//   rank 0 | F0 F1 F2 F3 .  .  .  I0 W0 F4 I1 W1 F5 I2 W2 W3?
//
// The scheduler goes through the micro-batches; for each it places a forward on every rank, first to last, then an
// input gradient on every rank, last to first. Weight gradients go where they cost nothing:
//   - into a gap that is at least as long,
//   - into a shorter gap when waiting instead would make this rank's bubble the largest of all,
//   - before a forward that would not fit the memory otherwise.
// Three choices that no rule settles are all tried (8 schedules) and the one with the shortest longest span is kept:
//   - whether the forwards before the first gradient may delay it,
//   - whether a rank two or more forwards ahead of the next one skips its turn in favour of the gradient,
//   - whether a short gap is filled even when the bubble would not be the largest.
// A rank stays at least one forward ahead of the next one, so that the next never waits for it in the steady state.
//
// Memory: a micro-batch counts as 1 from its forward to its weight gradient. Limit P for zb-1p and 2P for zb-2p, or
// shape.memory_limit. With equal times, tw <= tf and tw <= ti, zb-1p has the span of ZB-H1; zb-2p has that of ZB-H2 or
// better. From the times of the paper's Table 9 come the bubble rates of its Table 5, to all four digits (by test).
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Uses shape.times, shape.message and shape.memory_limit. REQUIRES: refuse_zero_bubble_auto(shape) is empty.
ComputeSchedule generate_zb_1p(const ScheduleShape& shape);
ComputeSchedule generate_zb_2p(const ScheduleShape& shape);
std::string refuse_zero_bubble_auto(const ScheduleShape& shape);

}  // namespace stagecraft
