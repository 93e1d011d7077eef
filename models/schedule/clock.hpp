// When the actions of a compute schedule run, on ranks that work through their lists in order.
//
// The model of the papers that schedules come from: a computation starts when its rank is free and its input is there;
// a message between ranks takes `message`, overlaps with everything, and never waits for another. Exact; no search.
// sim/timeline.hpp evaluates whole plans, with unequal messages, reductions and optimizer steps; both agree where they
// overlap, by test.
#pragma once

#include <span>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct ClockSpan {
  double start = 0;
  double end = 0;
};

struct ClockedSchedule {
  std::vector<std::vector<ClockSpan>> spans;  // as the schedule's ranks
  double makespan = 0;                        // first start to last end over all ranks
  double longest_span = 0;                    // the same of one rank, the longest: the zero-bubble papers' cost
  double work = 0;                            // computing time of all ranks together
  double busiest = 0;                         // of the rank that computes longest

  // Idle share of ranks * makespan: the bubble of the GPipe and Chimera papers.
  double idle_share() const { return 1 - work / (makespan * static_cast<double>(spans.size())); }
  // (longest span - busiest) / longest span: the bubble rate of the zero-bubble papers, for equal ranks.
  double span_bubble() const { return 1 - busiest / longest_span; }
};

// `times` by stage, of one micro-batch (of one slice with token slices); empty: all 1. An overlapped pair is one block.
// REQUIRES: a schedule that passed check().
ClockedSchedule clock_schedule(const ComputeSchedule& schedule, std::span<const StageTimes> times = {},
                               double message = 0);

}  // namespace stagecraft
