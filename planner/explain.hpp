// Why a candidate won or lost, in words and in the terms of its step time.
#pragma once

#include <string>

#include "planner/planner.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {

// Splits the step of a plan: the same timeline with messages, reductions and optimizer taken away one after the other.
// REQUIRES: costs of the timeline's schedule.
Breakdown break_down(Timeline& timeline, const StepCosts& costs);

// Idle share of the ranks' time from the first forward to the last backward, as Prediction::bubble.
double bubble_of(const Breakdown& breakdown);

// "slower: +12 %, bubble 27 % against 9 %": the loser's largest handicap, by SimGrid where both were confirmed there.
// REQUIRES: both have a timeline.
std::string why_slower(const Candidate& loser, const Candidate& winner);

// By the objective: as why_slower(), "dearer: +12 %, a step that takes -3 %", "80 % of a device's memory against 73 %,
// ...".
std::string why_worse(const Candidate& loser, const Candidate& winner, LayoutObjective objective);

// "out of memory on stage 3 (A100): needs 95.0 GiB, has 80.0 GiB"; of a group of devices: each of them.
std::string why_not(const Shortage& shortage);

// The winner's step split into its terms, and against the runner-up (null: there is none). What SimGrid's step has
// beyond the timeline's, where it was asked, is the contention.
std::string why_best(const Candidate& winner, const Candidate* runner_up,
                     LayoutObjective objective = LayoutObjective::time);

// Says of each ranked plan and near miss why it is where it is, and why the first is the best. The last thing to do:
// what changes the ranking afterwards makes it wrong. REQUIRES: ranked plans, fastest first.
void give_verdicts(SearchResult& result);

}  // namespace stagecraft
