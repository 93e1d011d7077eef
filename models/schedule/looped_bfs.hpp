// Looped breadth-first: all micro-batches pass one chunk before the next chunk begins, forwards and backwards
// (Lamy-Poirier 2023, arXiv 2211.05953). In the order of torch's ScheduleLoopedBFS.
//
//   P = 2 ranks, V = 2 (stages 0, 2 on rank 0; 1, 3 on rank 1), M = 3, backward as long as forward:
//
//   rank 0 | 0F0 0F1 0F2 2F0 2F1 2F2 .   .   2B2 2B1 2B0 0B2 0B1 0B0
//   rank 1 | .   1F0 1F1 1F2 3F0 3F1 3F2 3B2 3B1 3B0 1B2 1B1 1B0 .
//
// Stage = chunk * P + rank. Chunk by chunk all F, micro-batches ascending; then chunks backwards all B, micro-batches
// descending. With full sharding, each chunk's weights are gathered once a direction: what the order is for.
// Makespan with equal stages, f and b of one chunk: (M V + P - 1)(f + b) for M >= P, ((V-1) P + M + P - 1)(f + b) for
// M < P, where every round trip through the ranks leaves them idle. Messages of latency c add 2 (P-1) c when
// (M-P) f >= P c and (M-P) b >= P c. All M V chunk activations of a rank are in flight at once.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_looped_bfs(shape) is empty.
ComputeSchedule generate_looped_bfs(const ScheduleShape& shape);
std::string refuse_looped_bfs(const ScheduleShape& shape);

}  // namespace stagecraft
