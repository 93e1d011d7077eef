// 1F1B: after a warm-up, one forward and one backward in turn. As PipeDream-Flush (Narayanan et al. 2021,
// arXiv 2006.09503, figure 2), Megatron-LM without interleaving, DeepSpeed's TrainSchedule and torch's Schedule1F1B.
//
//   P = 4 ranks, M = 6 micro-batches, backward as long as forward:
//
//            | warm-up   | steady                        | cool-down
//   rank 0 | F0 F1 F2 F3 .  .  .  B0 F4 B1 F5 B2 .  B3 .  B4 .  B5
//   rank 1 | .  F0 F1 F2 .  .  B0 F3 B1 F4 B2 F5 B3 .  B4 .  B5 .
//   rank 2 | .  .  F0 F1 .  B0 F2 B1 F3 B2 F4 B3 F5 B4 .  B5 .  .
//   rank 3 | .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 .  .  .
//
// Rank r runs w = min(M, P-1-r) forwards, then M-w pairs of F and B, then the last w backwards.
// Makespan with equal stages and free messages: (M + P - 1)(f + b), as GPipe; but rank r holds only min(M, P-r)
// micro-batches in flight. Messages of latency c add, for M >= 2,
//   [2 (P-1) (1 + floor((M-2)/P)) + 2 ((M-2) mod P)] c
// because every block of P micro-batches waits for a round trip through the pipeline; 2 (P-1) c for M = 1.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_one_f_one_b(shape) is empty.
ComputeSchedule generate_one_f_one_b(const ScheduleShape& shape);
std::string refuse_one_f_one_b(const ScheduleShape& shape);

}  // namespace stagecraft
