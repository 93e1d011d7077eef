// ZB-V, planned: two stages a rank in a V and a greedy order from measured times under a memory limit (Qi et al. 2024,
// arXiv 2401.10241, section 6; the memory of 1F1B).
//
//   P = 3 ranks, M = 5 micro-batches, equal times. Capitals: chunk 0, stage r; small: chunk 1, stage 2P-1-r.
//
//   rank 0 | F0 F1 F2 F3 F4 f0 i0 w0 f1 i1 w1 f2 i2 w2 I0 W0 f3 i3 w3 I1 W1 f4 i4 I2 w4 I3 W2 I4 W3 W4 .  .
//   rank 1 | .  F0 F1 F2 f0 F3 f1 i0 w0 f2 i1 w1 F4 I0 W0 f3 i2 w2 I1 W1 f4 i3 I2 i4 I3 w3 I4 W2 w4 W3 W4 .
//   rank 2 | .  .  F0 f0 F1 f1 F2 f2 i0 w0 F3 I0 W0 f3 i1 w1 F4 I1 W1 f4 i2 I2 i3 I3 i4 I4 w2 W2 w3 W3 w4 W4
//
// The first micro-batch goes down the V and up again; before it comes back a rank runs as many forwards as the memory
// and the time let through. Then every round places an input gradient on each rank, of chunk 0 as soon as the next
// rank's is there, and a forward, of chunk 1 as soon as the next rank's is there. Weight gradients fill gaps that are
// long enough, and shorter ones where waiting would give the rank the largest bubble. Whether they do that before
// forwards and before the gradients of chunk 1 is tried both ways, and each way again with the bubbles that its last
// attempt had, as long as the largest one shrinks: a rank on the way to less than the largest need not fill its short
// gaps.
//
// Memory: a stage of a micro-batch counts half, two stages being a rank's share of the model, from its forward to its
// weight gradient. At most P of it on a rank, as 1F1B, or shape.memory_limit. With less, where the greedy order cannot
// go on, the result is V-Half if that fits, else V-Min (controllable_memory.hpp), which needs (P+4)/3 micro-batches.
// Equal times, f = i = w, free messages, M >= 2P-1: no bubble, span 6 M f; the makespan is (P-1) f longer.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Uses shape.times, shape.message and shape.memory_limit. REQUIRES: refuse_zb_v_auto(shape) is empty.
ComputeSchedule generate_zb_v_auto(const ScheduleShape& shape);
std::string refuse_zb_v_auto(const ScheduleShape& shape);

}  // namespace stagecraft
