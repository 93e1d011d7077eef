// The step time of a schedule without contention: the longest path through the actual action lists.
//
// The rung between closed forms and SimGrid: exact stage times and message times, unlimited bandwidth sharing. The
// search lives on it, so it is built once a schedule and evaluated many times (a few nanoseconds an action).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"
#include "models/trace.hpp"

namespace stagecraft {

// What one replica's actions take.
struct StepCosts {
  std::vector<StageCost> stages;
  std::vector<Link> hops;  // hops[s]: path from the device of stage s to that of stage s+1; a rank's own: zero
  std::vector<Seconds> reduce_grad;  // by stage: all-reduce over the replicas; zero with one replica
  Seconds reduce_tied;               // all-reduce of the shared table between the ends
};

// The costs of a plan on its cluster: paths between its devices (the slowest replica's), ring all-reduces.
StepCosts step_costs(const Plan& plan);

class Timeline {
 public:
  // REQUIRES: a schedule from lower().
  explicit Timeline(const LoweredSchedule& schedule);

  std::size_t actions() const;
  // End of the last action. REQUIRES: costs of as many stages as the schedule has.
  Seconds makespan(const StepCosts& costs);
  // Start and end of each action, in the order of ranks, then positions; `spans` is resized.
  struct Span {
    Seconds start, end;
  };
  Seconds evaluate(const StepCosts& costs, std::vector<Span>& spans);

 private:
  struct Node;
  std::vector<Node> nodes_;
};

// One step of a plan, all replicas alike, as a trace with predicted peak memory.
Trace simulate_timeline(const Plan& plan);

}  // namespace stagecraft
