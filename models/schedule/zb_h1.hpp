// ZB-H1: 1F1B with the backward split, whose weight gradients fill part of the bubble (Qi et al. 2024, arXiv
// 2401.10241, section 2.1). The handcrafted schedule with the memory of 1F1B.
//
//   P = 4 ranks, M = 6 micro-batches, F, I and W of equal length:
//
//   rank 0 | F0 F1 F2 F3 .  .  .  I0 W0 F4 I1 W1 F5 I2 W2 I3 W3 I4 W4 I5 W5
//   rank 1 | .  F0 F1 F2 .  .  I0 F3 I1 W0 F4 I2 W1 F5 I3 W2 I4 W3 I5 W4 W5
//   rank 2 | .  .  F0 F1 .  I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 I5 W3 W4 W5
//   rank 3 | .  .  .  F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 W3 W4 W5
//
// Rank r runs w = min(M, P-1-r) forwards, then pairs of F and I, then the last w I; from the (r+1)-th I on each I is
// followed by the oldest W that is left, and the last r W come at the end.
// Makespan with equal stages, f, i, w the times of F, I, W: M (f+i+w) + (P-1)(f+i-w) for M >= P, w <= f and w <= i;
// (M+P-1)(f+i) + w for M <= P. Messages of latency c <= w/2 add 4 (P-1) c for M >= 2P, 2 c less for M = P.
// Rank r holds at most min(M, P-r) micro-batches until their I, and min(M, P) until their W.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_zb_h1(shape) is empty.
ComputeSchedule generate_zb_h1(const ScheduleShape& shape);
std::string refuse_zb_h1(const ScheduleShape& shape);

}  // namespace stagecraft
