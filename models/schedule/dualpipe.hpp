// DualPipe: two pipelines in opposite directions whose forwards and backwards run as one block, so that each hides the
// other's messages (DeepSeek-AI 2024, arXiv 2412.19437, figure 5); DualPipeV: one of them, folded into a V.
//
//   dualpipe, P = 4 ranks, M = 8 micro-batches, F, I and W of one length; F& forms a block with the B behind it:
//
//   rank 0 | F0 F1 F2 F4 I4 W4 F5 F3& B5 -  .  F6& B0 -  B6 -  .  F7& B1 -  B7 -  I2 W2 I3 W3
//   rank 1 | .  F0 F4 F1 F5 F2 B4 -  F6& B0 -  F3& B5 -  F7& B1 -  B6 -  B2 -  .  I7 I3 W7 W3
//   rank 2 | .  F4 F0 F5 F1 F6 B0 -  F2& B4 -  F7& B1 -  F3& B5 -  B2 -  B6 -  .  I3 I7 W3 W7
//   rank 3 | F4 F5 F6 F0 I0 W0 F1 F7& B1 -  .  F2& B4 -  B2 -  .  F3& B5 -  B3 -  I6 W6 I7 W7
//
// The down pipeline has stage s on rank s and takes micro-batches 0 .. M/2-1, the up pipeline has stage s on rank P-1-s
// and takes M/2 .. M-1. Written for a rank of the first half with d ranks before it and P/2 ranks up to the middle,
// lane 0 its down stage, lane 1 its up stage (the other half mirrors it), h = P/2-d-1:
//   2h x F0 | (d+1) x F0 F1 | h x I1 W1 F1 | (M/2-P+d+1) x (F0 B1)(F1 B0) |
//   h x B1 (F1 B0) | (d+1) x B1 B0 | h x W I0 | (d+1) x W
// where the first F0 and B1 of the two middle ranks form no block, and from the middle of (d+1) x B1 B0 on B is I, its
// W coming later. DualPipeV has stages r and 2P-1-r on rank r and the same phases with P for P/2 and M for M/2.
//
// Idle time of a rank with equal stages, free messages, f = i = w and blocks as long as their parts (t_FB = f + b):
// (P/2-1)(t_FB + b - 3w) for DualPipe, (P-1)(t_FB + b - 3w) for DualPipeV; there without blocks half of it, (P-1) f. In
// flight: P+1 stages on every rank (DualPipe), 2P+1 half as large ones (DualPipeV). DualPipe keeps each stage's weights
// on two ranks.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_dualpipe(shape) is empty.
ComputeSchedule generate_dualpipe(const ScheduleShape& shape);
std::string refuse_dualpipe(const ScheduleShape& shape);

// REQUIRES: refuse_dualpipe_v(shape) is empty.
ComputeSchedule generate_dualpipe_v(const ScheduleShape& shape);
std::string refuse_dualpipe_v(const ScheduleShape& shape);

}  // namespace stagecraft
