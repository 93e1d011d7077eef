// Hanayo: each micro-batch runs down the ranks and up again in W waves, without a second copy of the weights (Liu et
// al. 2023, arXiv 2308.15762).
//
//   P = 4 ranks, M = 4 micro-batches, W = 1 wave, backward twice as long as forward. Small letters: on the way up.
//
//   rank 0 | F0 F1 F2 F3 .  .  .  f0 b0 -  f1 b1 -  f2 b2 -  f3 b3 -  .  .  .  .  B0 -  .  B1 -  .  .  B2 -  .  .  B3 -
//   rank 1 | .  F0 F1 F2 F3 .  f0 .  f1 .  b0 -  f2 b1 -  f3 b2 -  .  b3 -  B0 -  .  B1 -  .  .  B2 -  .  .  B3 -  .  .
//   rank 2 | .  .  F0 F1 F2 f0 F3 f1 .  f2 .  f3 b0 -  .  b1 -  .  B0 -  b2 -  B1 -  b3 -  B2 -  .  .  B3 -  .  .  .  .
//   rank 3 | .  .  .  F0 f0 F1 f1 F2 f2 F3 f3 .  .  .  b0 -  B0 -  b1 -  B1 -  b2 -  B2 -  b3 -  B3 -  .  .  .  .  .  .
//
// shape.stages_per_rank = 2W; rank r has stages r, 2P-1-r, 2P+r, 4P-1-r, ... A rank that is free takes a backward if
// one is ready, of the oldest micro-batch, else the forward of its deepest stage, with a backward twice as long as a
// forward. At most 2P micro-batches, or shape.memory_limit, are in the pipeline at a time.
//
// For M = P and b = 2f the paper has an idle share of (2P-2) / (3PW + P-1). This order needs less for W = 1, idle
// exactly 4 (P-1) f on each rank, and is within a tenth of it for W >= 2 (by test, P to 8). No closed form for other M.
// In flight on a rank: at most 2W stages of each micro-batch in the pipeline.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_hanayo(shape) is empty.
ComputeSchedule generate_hanayo(const ScheduleShape& shape);
std::string refuse_hanayo(const ScheduleShape& shape);

}  // namespace stagecraft
