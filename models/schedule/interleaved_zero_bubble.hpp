// Interleaved zero bubble: ZB-H1 with V >= 1 stages a rank, as torch's ScheduleInterleavedZeroBubble (its "ZB1P"; after
// Qi et al. 2024, arXiv 2401.10241).
//
//   P = 2 ranks, V = 2 (stages 0, 2 on rank 0; 1, 3 on rank 1), M = 4, F, I and W of equal length:
//
//   rank 0 | 0F0 0F1 2F0 2F1 .   2I0 2W0 0F2 2I1 2W1 0F3 0I0 0W0 2F2 0I1 0W1 2F3 2I2 2W2 2I3 2W3 0I2 0W2 0I3 0W3
//   rank 1 | .   1F0 1F1 3F0 3I0 3F1 3I1 3W0 1F2 1I0 3W1 1F3 1I1 1W0 3F2 3I2 1W1 3F3 3I3 3W2 1I2 3W3 1I3 1W2 1W3
//
// Stage = chunk * P + rank. As interleaved-1f1b-torch (interleaved_one_f_one_b.hpp) with N = M / max(1, M / P rounded
// down) micro-batches a group, but rank r runs only w = min(M V, (P-r-1) + (V-1) N) forwards ahead, then pairs of F and
// I, then the last w I; from the (r+1)-th I on each I is followed by the oldest W that is left. With V = 1 and M a
// multiple of P it is the order of zb-h1. Makespan with equal stages, f, i, w the times of a chunk's F, I, W: M V
// (f+i+w) + (P-1)(f+i-w) for M a multiple of P, w <= f and w <= i. A rank holds at most P V chunk activations until
// their W: the memory of P stages under 1F1B.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_interleaved_zero_bubble(shape) is empty.
ComputeSchedule generate_interleaved_zero_bubble(const ScheduleShape& shape);
std::string refuse_interleaved_zero_bubble(const ScheduleShape& shape);

}  // namespace stagecraft
