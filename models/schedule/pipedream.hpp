// PipeDream and PipeDream-2BW: 1F1B that never flushes; weights change while micro-batches are in flight, and each
// backward uses the weights of its forward (Narayanan et al. 2019, SOSP, sections 3.2 and 3.3; Narayanan et al. 2021,
// arXiv 2006.09503, section 3).
//
//   P = 4 ranks, M = 6 of a stream of micro-batches, backward as long as forward:
//
//            | fill      | steady, without end
//   rank 0 | F0 F1 F2 F3 .  .  .  B0 F4 B1 F5 B2 .  B3 .  B4 .  B5
//   rank 1 | .  F0 F1 F2 .  .  B0 F3 B1 F4 B2 F5 B3 .  B4 .  B5 .
//   rank 2 | .  .  F0 F1 .  B0 F2 B1 F3 B2 F4 B3 F5 B4 .  B5 .  .
//   rank 3 | .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 .  .  .
//
// The order is that of 1F1B (one_f_one_b.hpp), M micro-batches of the stream; the gaps at the end are only where the
// stream ends. NOAM (the micro-batches that rank 0 admits, with one worker a stage) is P. Once filled, a micro-batch
// ends every max_s (f_s + b_s): no bubble. Rank r holds min(M, P-r) micro-batches in flight.
//
//   pipedream      a step after every micro-batch. Rank r keeps P-r weight versions (weight stashing), w(t+1) = w(t) -
//                  lr * grad f(w_0(t-P+1), ..., w_{P-1}(t)): stage s computes with weights P-1-s steps old.
//   pipedream-2bw  a step after every `shape.group` micro-batches (by default M), whose gradients are summed; two
//                  weight versions on every rank, w(t+1) = w(t) - lr * grad f(w(t-1)): one step old everywhere. A group
//                  is at least P micro-batches, so that two versions suffice, and divides M.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: the refusal of the same name is empty.
ComputeSchedule generate_pipedream(const ScheduleShape& shape);
ComputeSchedule generate_pipedream_2bw(const ScheduleShape& shape);
std::string refuse_pipedream(const ScheduleShape& shape);
std::string refuse_pipedream_2bw(const ScheduleShape& shape);

}  // namespace stagecraft
