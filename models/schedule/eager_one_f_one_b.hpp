// Eager 1F1B: 1F1B that runs about twice as many forwards ahead, so that messages have time to travel. As alpa's
// 1f1b_overlap_friendly (Zhuang et al. 2023, arXiv 2211.05322) and DAPPLE's policy P_B (Fan et al. 2021, arXiv
// 2007.01045).
//
//   P = 4 ranks, M = 6 micro-batches, backward as long as forward:
//
//   rank 0 | F0 F1 F2 F3 F4 F5 .  B0 .  B1 .  B2 .  B3 .  B4 .  B5
//   rank 1 | .  F0 F1 F2 F3 F4 B0 F5 B1 .  B2 .  B3 .  B4 .  B5 .
//   rank 2 | .  .  F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 .  B4 .  B5 .  .
//   rank 3 | .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 .  .  .
//
// Rank r runs w = min(M, 2(P-r) - 1) forwards, then B and F in turn, then the last backwards.
// Makespan with equal stages: (M + P - 1)(f + b) + 2 (P-1) c for messages of latency c <= (f + b) / 2: the latency is
// paid once and not, as in 1F1B, once every P micro-batches. Rank r holds w micro-batches in flight, about twice
// 1F1B's.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_eager_one_f_one_b(shape) is empty.
ComputeSchedule generate_eager_one_f_one_b(const ScheduleShape& shape);
std::string refuse_eager_one_f_one_b(const ScheduleShape& shape);

}  // namespace stagecraft
