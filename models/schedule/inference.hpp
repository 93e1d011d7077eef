// Inference: forwards alone, with V >= 1 stages a rank (stage = chunk * P + rank). With V = 1 DeepSpeed's
// InferenceSchedule, alpa's "inference", Megatron-LM with forward_only.
//
//   P = 2 ranks, V = 2 (stages 0, 2 on rank 0; 1, 3 on rank 1), M = 5:
//
//   rank 0 | 0F0 0F1 2F0 2F1 0F2 0F3 0F4 2F2 2F3 2F4 .
//   rank 1 | .   1F0 1F1 3F0 3F1 1F2 1F3 1F4 3F2 3F3 3F4
//
// Micro-batches go in groups of P, which pass chunk after chunk, so that the first results are out early; the last
// group takes what P does not divide, P to 2P-1 micro-batches, so that no rank waits for a small group to come around.
// Makespan with equal stages, f of one chunk: (M V + P - 1) f for M >= P, ((V-1) P + M + P - 1) f for M < P. Messages
// of latency c add (P-1) c with V = 1. For M <= P or M >= 2P micro-batch 0 is out after V P f. Nothing is kept for a
// backward.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_inference(shape) is empty.
ComputeSchedule generate_inference(const ScheduleShape& shape);
std::string refuse_inference(const ScheduleShape& shape);

}  // namespace stagecraft
