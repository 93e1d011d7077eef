// BitPipe: two interleaved pipelines in the shape of a V, in opposite directions (Wu, Chen and Yu 2024, arXiv
// 2410.19367, figure 5; units joined by direct concatenation).
//
//   P = 4 ranks, M = 4 micro-batches, backward as long as forward. Capitals: first chunk of a pipeline, small: second.
//
//   rank 0 | F0 F1 .  F2 f2 F3 f3 f0 b0 f1 b1 b2 B2 b3 B3 B0 .  B1
//   rank 1 | .  F0 F2 F1 F3 f2 f0 f3 f1 b0 b2 b1 b3 B2 B0 B3 B1 .
//   rank 2 | .  F2 F0 F3 F1 f0 f2 f1 f3 b2 b0 b3 b1 B0 B2 B1 B3 .
//   rank 3 | F2 F3 .  F0 f0 F1 f1 f2 b2 f3 b3 b0 B0 b1 B1 B2 .  B3
//
// The model has 2P stages. The down pipeline has stages r and 2P-1-r on rank r and takes micro-batches 0 .. M/2-1; the
// up pipeline has stages P-1-r and P+r there and takes M/2 .. M-1. So every rank has four stages, two of each pipeline,
// and every stage is on two ranks. The order is that of the slots in two_way_waves.hpp: P + P/2 + min(r, P-1-r)
// forwards, then forward and backward in turn.
//
// Makespan with equal stages and free messages, f and b of a stage (half of a rank's share of the model): for b = f,
// (4M + P-2) f: half of Chimera's bubble. For b = 2f, M = P: (6M + 2 (P-2)) f, idle share (P-2) / (3M + P-2). In flight
// on rank r: P + P/2 + 1 + min(r, P-1-r) stages, each half as large as Chimera's.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_bitpipe(shape) is empty.
ComputeSchedule generate_bitpipe(const ScheduleShape& shape);
std::string refuse_bitpipe(const ScheduleShape& shape);

}  // namespace stagecraft
