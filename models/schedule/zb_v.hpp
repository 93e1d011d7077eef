// ZB-V: two stages a rank, placed as a V, so that a rank runs first and last stages alike and the zero bubble costs no
// more memory than 1F1B (Qi et al. 2024, arXiv 2401.10241, section 6). The fixed order of torch's
// ScheduleZBVZeroBubble, made for F, I and W of equal length.
//
//   P = 2 ranks (stages 0, 3 on rank 0; 1, 2 on rank 1), M = 4, F, I and W of equal length:
//
//   rank 0 | 0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0F3 0I0 0W0 3F2 3I2 3W2 0I1 0W1 3F3 3I3 3W3 0I2 0W2 0I3 0W3 .
//   rank 1 | .   1F0 2F0 1F1 2F1 2I0 2W0 1F2 1I0 1W0 2F2 2I1 2W1 1F3 1I1 1W1 2F3 2I2 2W2 1I2 2I3 1I3 1W2 2W3 1W3
//
// Rank r has stage r (chunk 0) and stage 2P-1-r (chunk 1): the last stage and the loss are on rank 0, and the middle of
// the V needs no message. With M' = max(M, 2P-1) micro-batches (those from M on are left out afterwards), rank r runs
//   warm-up    2(P-r)-1 times F of chunk 0; r times F of chunk 1, F of chunk 0; P-r times F, I, W of chunk 1
//   steady     F (while there are any), I, W of chunk 0, then F, I, W of chunk 1, until chunk 1 has caught up
//   cool-down  r times I of chunk 0, I of chunk 1; P-r times I, W of chunk 0; the W left of chunk 1, then of chunk 0
// Longest span for f = i = w of a chunk and M >= 2P-1: 6 M f, no bubble at all; the makespan is (P-1) f longer, see
// zb_h2.hpp. At most 2P chunk activations, the size of P stages under 1F1B, are in flight on every rank until their W.
// Fewer than 2P-1 micro-batches run but leave gaps.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_zb_v(shape) is empty.
ComputeSchedule generate_zb_v(const ScheduleShape& shape);
std::string refuse_zb_v(const ScheduleShape& shape);

}  // namespace stagecraft
