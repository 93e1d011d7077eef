// GPipe: all forwards, then all backwards (Huang et al. 2019, arXiv 1811.06965, figure 2c).
//
//   P = 4 ranks, M = 4 micro-batches, backward as long as forward:
//
//   rank 0 | F0 F1 F2 F3 .  .  .  .  .  .  B0 B1 B2 B3
//   rank 1 | .  F0 F1 F2 F3 .  .  .  .  B0 B1 B2 B3 .
//   rank 2 | .  .  F0 F1 F2 F3 .  .  B0 B1 B2 B3 .  .
//   rank 3 | .  .  .  F0 F1 F2 F3 B0 B1 B2 B3 .  .  .
//
// Makespan with free messages, forwards f_s and backwards b_s of any length a stage:
//   sum f_s + (M-1) max f_s + sum b_s + (M-1) max b_s
// exact because the forwards, and after them the backwards, are a permutation flow shop with equal jobs. Equal stages:
// (M + P - 1)(f + b). Messages of latency c add 2 (P-1) c. Every rank keeps M micro-batches in flight.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_gpipe(shape) is empty.
ComputeSchedule generate_gpipe(const ScheduleShape& shape);
std::string refuse_gpipe(const ScheduleShape& shape);

}  // namespace stagecraft
