// Closed forms of the schedules for equal stages: what the pipeline costs beyond the work, and what it keeps.
//
// P ranks with V stages each, M micro-batches, f, i, w the times of F, I and W of one *stage* (1/V of a rank), b = i +
// w. Derivations, pictures and tests against the schedules themselves: docs/schedules.md.
#pragma once

#include <cstdint>
#include <string>

#include "models/layout.hpp"

namespace stagecraft {

struct StageWork {
  double forward = 0;          // f
  double backward_input = 0;   // i, recomputation included
  double backward_weight = 0;  // w
  double total() const { return forward + backward_input + backward_weight; }
};

// Whether the schedule has no closed form: bubble_time() is then 0, and ScheduleTimes knows the rest.
bool is_timed(PipelineSchedule schedule);
// Of a timed schedule's shape, at most: longer ones take too long to make for every candidate of a search.
inline constexpr std::int64_t most_timed_actions = 4'000'000;

// Idle time of a rank beyond M V (f + i + w), messages aside. Exact where docs/schedules.md says so for these times,
// else an estimate; never negative. zb-h2, zb-1p, zb-2p and zb-v let the ranks step one after the other (no barrier).
double bubble_time(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                   std::int32_t microbatches, const StageWork& stage);

// Activations of one stage that the fullest rank keeps, in stages: at most M V, of 1f1b min(M, P); of timed schedules M
// V. `rank` counts from 0; the first rank is the fullest of all schedules but those in a V or in two directions, which
// fill evenly.
double stages_in_flight(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                        std::int32_t microbatches, std::int32_t rank);

// Messages on the critical path of a step, each way counted, when computation does not wait for them otherwise:
// the fill and drain of the pipeline. REQUIRES: ranks > 0.
double messages_in_latency(std::int32_t ranks, std::int32_t stages_per_rank);

// Stages a rank that the schedule is made for: 1, 2, or 0 for any from 2 on (searched: from 1).
std::int32_t stages_per_rank_of(PipelineSchedule schedule);
// Whether stages go down the ranks and up again in turn, not round and round.
bool turns_back(PipelineSchedule schedule);
// Copies of the weights: 2 where each stage is on two ranks.
std::int32_t weight_copies(PipelineSchedule schedule);
// Whether the backward is split into I and W.
bool splits_backward(PipelineSchedule schedule);

// Why the schedule does not take this shape; empty when it does.
std::string refuse_schedule(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                            std::int32_t microbatches);

}  // namespace stagecraft
