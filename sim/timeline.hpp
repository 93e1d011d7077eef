// The step time of a schedule without contention: the longest path through the actual action lists.
//
// Where ranks share a GPU (StepCosts::neighbours), an action's duration depends on what the others do meanwhile: the
// same graph is then played event by event (sharing.hpp), some 100 ns an action.
//
// The rung between closed forms and SimGrid: exact stage times and message times, unlimited bandwidth sharing. The
// search lives on it, so it is built once a schedule and evaluated many times (a few nanoseconds an action).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"
#include "models/trace.hpp"
#include "sim/sharing.hpp"

namespace stagecraft {

// What one replica's actions take.
struct StepCosts {
  std::vector<StageCost> stages;
  std::vector<Link> hops;  // hops[s]: path from the device of stage s to that of stage s+1; a rank's own: zero
  std::vector<Seconds> reduce_grad;  // by stage: all-reduce over the replicas; zero with one replica
  Seconds reduce_tied;               // all-reduce of the shared table between the ends
  Neighbours neighbours;             // ranks on slices of one GPU; empty where nothing is shared
};

// The costs of a plan on its cluster: paths between its devices (the slowest replica's), ring all-reduces.
StepCosts step_costs(const Plan& plan);

class Timeline {
 public:
  // REQUIRES: a schedule from lower().
  explicit Timeline(const LoweredSchedule& schedule);

  std::size_t actions() const { return actions_.size(); }
  // End of the last action. REQUIRES: costs of as many stages as the schedule has; no negative time.
  Seconds makespan(const StepCosts& costs);
  // Start and end of each action, in the order of ranks, then positions; `spans` is resized.
  struct Span {
    Seconds start, end;
    bool operator==(const Span&) const = default;
  };
  Seconds evaluate(const StepCosts& costs, std::vector<Span>& spans);
  // What each rank computed, optimizer steps included. REQUIRES: makespan() or evaluate() before.
  std::vector<Seconds> busy() const;

 private:
  friend class TimelineBuilder;
  // Something that takes time: start = max(ends[after], ends[message_from] + weights[message]),
  // end = start + weights[duration]. Messages are no nodes: they follow from the ends.
  struct Node {
    std::uint32_t after;
    std::uint32_t message_from;
    std::uint32_t message;
    std::uint32_t duration;
  };
  // How an action's span follows from the ends.
  enum class Role : std::uint8_t {
    occupy,   // the node's; the rank is free from its end
    reduce,   // the node's; the rank goes on meanwhile
    message,  // from when the rank is free, for weights[message]
    wait,     // from when the rank is free to the start of the node
  };
  struct ActionNode {
    std::uint32_t node;
    std::uint32_t message;
    Role role;
  };
  // The graph seen from each node's predecessors, for playing it: made when it is first needed.
  struct Dependents {
    std::vector<std::uint32_t> first;  // by node, and one past the last: into `nodes`
    std::vector<std::uint32_t> nodes;
    std::vector<std::int32_t> ranks;  // by node: whose time it takes; -1: nobody's
    int stepping_ranks = 0;           // ranks with an optimizer step
  };
  friend class SharedPlay;
  void set_weights(const StepCosts& costs);
  void sweep();
  void play(const StepCosts& costs);
  void find_dependents();
  bool is_step(const Node& node) const;
  double start_of(std::size_t node) const { return played_ ? starts_[node] : earliest_start(nodes_[node]); }
  double earliest_start(const Node& node) const {
    return std::max(ends_[node.after], ends_[node.message_from] + weights_[node.message]);
  }

  int stages_ = 0;
  bool synchronous_ = true;                // updates once a step
  bool played_ = false;                    // what the last makespan() did
  std::vector<Node> nodes_;                // in topological order; node 0 is the start of the step
  std::vector<ActionNode> actions_;        // in the order of ranks, then positions
  std::vector<std::uint32_t> rank_ends_;   // one past the last action, by rank
  std::vector<std::uint32_t> last_nodes_;  // by rank
  std::vector<double> weights_;            // seconds: durations and message times, indexed by nodes
  std::vector<double> ends_;               // seconds, by node
  std::vector<double> starts_;             // seconds, by node; of the last play()
  std::vector<Span> node_spans_;           // of the last evaluate()
  Dependents dependents_;
};

// One step of a plan, all replicas alike, as a trace with predicted peak memory.
Trace simulate_timeline(const Plan& plan);

}  // namespace stagecraft
