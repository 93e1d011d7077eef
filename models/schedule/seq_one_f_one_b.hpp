// Seq1F1B: 1F1B whose units are slices of a sequence's tokens instead of micro-batches (Sun et al. 2024, arXiv
// 2406.03488).
//
//   P = 3 ranks, M = 2 micro-batches of k = 3 slices, backward as long as forward; F0b is slice b of micro-batch 0:
//
//   rank 0 | F0a F0b F0c F1a F1b .   .   B0c F1c B0b .   B0a .   B1c B1b B1a
//   rank 1 | .   F0a F0b F0c F1a .   B0c F1b B0b F1c B0a .   B1c B1b B1a .
//   rank 2 | .   .   F0a F0b F0c B0c F1a B0b F1b B0a F1c B1c B1b B1a .   .
//
// Slices go forward in order, for attention to the keys and values before them, and backward in reverse: the gradient
// of those keys and values comes from the later slices. Rank r runs w = min(M k, P-2-r+k) forwards, then pairs of F and
// B, then the last w backwards. Micro-batch m, slice i has the number m k + i in the actions; ComputeSchedule.slices =
// k.
//
// Makespan with slices of equal length f and b, equal stages and free messages: (M k + P-1)(f+b): the bubble of 1F1B in
// slices, 1/k of it in micro-batches. In flight on rank r: min(M k, P-1-r+k) slices. With k = 1 it is 1F1B.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_seq_one_f_one_b(shape) is empty.
ComputeSchedule generate_seq_one_f_one_b(const ScheduleShape& shape);
std::string refuse_seq_one_f_one_b(const ScheduleShape& shape);

}  // namespace stagecraft
