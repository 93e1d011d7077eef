// Interleaved 1F1B: 1F1B with V > 1 stages (chunks) a rank, which shortens the bubble by V and sends V times as many
// messages (Narayanan et al. 2021, arXiv 2104.04473, section 2.2). In the order of Megatron-LM.
//
//   P = 2 ranks, V = 2 (stages 0, 2 on rank 0; 1, 3 on rank 1), M = 4, backward as long as forward:
//
//   rank 0 | 0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 .   2B2 .   2B3 0B2 0B3
//   rank 1 | .   1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3 .
//
// Stage = chunk * P + rank. Micro-batches go in groups of N (`shape.group`, by default P; Megatron-LM's
// microbatch_group_size_per_vp_stage; interleaved_table.hpp has the table). Rank r runs
//   w = min(M V, 2 (P-r-1) + (V-1) N)
// forwards, then pairs of F and B, then the last w backwards.
// Makespan with equal stages, f and b of one chunk: (M V + P - 1)(f + b): bubble / ideal = (P-1) / (V M). Messages of
// latency c add 2 (P V - 1) c for N = P, c <= f and c <= b.
// Rank r holds at most min(M V, 2 (P-1-r) + (V-1) N + 1) chunk activations when N divides M.
//
// Rules: V >= 2 (with V = 1 Megatron-LM runs plain 1F1B); P <= N <= M; M % N is 0 or at least P, since a smaller last
// group would wait for itself to come around. N = P: M a multiple of P, the paper's rule.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_interleaved_one_f_one_b(shape) is empty.
ComputeSchedule generate_interleaved_one_f_one_b(const ScheduleShape& shape);
std::string refuse_interleaved_one_f_one_b(const ScheduleShape& shape);

// Interleaved 1F1B as torch.distributed.pipelining's ScheduleInterleaved1F1B: as above with N = M / R micro-batches in
// each of R = max(1, M / P rounded down) rounds; M must be a multiple of R. It is the order above with N = P where P
// divides M, and with N = 5 for P = 4, M = 10. With M < P it still runs, at a makespan beyond (M V + P - 1)(f + b).
// REQUIRES: refuse_interleaved_one_f_one_b_torch(shape) is empty.
ComputeSchedule generate_interleaved_one_f_one_b_torch(const ScheduleShape& shape);
std::string refuse_interleaved_one_f_one_b_torch(const ScheduleShape& shape);

}  // namespace stagecraft
