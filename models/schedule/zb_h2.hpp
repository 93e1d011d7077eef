// ZB-H2: more forwards ahead than 1F1B and the backward split, so that no rank waits between its first forward and its
// last action (Qi et al. 2024, arXiv 2401.10241, section 2.2).
//
//   P = 4 ranks, M = 8 micro-batches, F, I and W of equal length:
//
//   rank 0 | F0 F1 F2 F3 F4 F5 F6 I0 W0 F7 I1 W1 I2 W2 I3 W3 I4 W4 I5 W5 I6 W6 I7 W7 .  .  .
//   rank 1 | .  F0 F1 F2 F3 F4 I0 F5 I1 F6 I2 W0 F7 I3 W1 I4 W2 I5 W3 I6 W4 I7 W5 W6 W7 .  .
//   rank 2 | .  .  F0 F1 F2 I0 F3 I1 F4 I2 F5 I3 F6 I4 W0 F7 I5 W1 I6 W2 I7 W3 W4 W5 W6 W7 .
//   rank 3 | .  .  .  F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 F5 I5 F6 I6 W0 F7 I7 W1 W2 W3 W4 W5 W6 W7
//
// The ranks' spans form a parallelogram, whose makespan is longer than each of them. The saving is real only if a rank
// may start its next step without waiting for the others (the paper's post-validation of the optimizer step).
//
// Rank r runs w = min(M, 2(P-r) - 1) forwards; then I, a W when more than 2r are left, and F, in turn; then the last W.
// Longest span with equal stages: M (f+i+w) + (P-1)(f+i-2w) for M >= 2P-1, exact for f = i = w and for i + w = 2 f with
// w <= f (a transformer); messages of latency c <= f add 2 (P-1) c. Makespan for f = i = w: (3 M + P - 1) f.
// Rank r holds at most min(M, 2(P-r) - 1) micro-batches until their I, min(M, 2P-1) until their W: twice 1F1B's.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_zb_h2(shape) is empty.
ComputeSchedule generate_zb_h2(const ScheduleShape& shape);
std::string refuse_zb_h2(const ScheduleShape& shape);

}  // namespace stagecraft
