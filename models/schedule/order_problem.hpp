// The problem that searched.hpp, branch_and_bound.hpp and lower_bound.hpp are about: in which order shall each rank run
// its forwards, input gradients and weight gradients, so that the last one ends soonest?
//
// Ranks run their lists in order; a computation starts when its rank is free and its input is there; a message between
// ranks takes `message` and waits for nothing else. A rank keeps an activation from the forward to the weight gradient,
// at most `activation_limit` of them. The objective is the makespan: the end of the last computation.
//
// Two things need no search:
//   - Backwards are always split: I and W side by side in place of B start nothing later; the gradient leaves sooner.
//   - Micro-batches are alike, so each stage may take them in order. In any schedule, when the k-th forward of stage s
//     starts, k forwards of stage s-1 have arrived; so the k-th may as well be micro-batch k. Likewise for I and W.
// So an order is, for each rank, a word over (stage, F | I | W): the n-th time that a letter occurs is micro-batch n.
#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct OrderProblem {
  int ranks = 1;
  int microbatches = 1;
  std::vector<int> rank_of_stage;
  std::vector<StageTimes> times;  // by stage
  double message = 0;
  int activation_limit = std::numeric_limits<int>::max();  // of one stage and micro-batch, on a rank

  int stages() const { return static_cast<int>(rank_of_stage.size()); }
  double time(int stage, ActionKind kind) const {
    const StageTimes& of_stage = times[static_cast<std::size_t>(stage)];
    return kind == ActionKind::forward          ? of_stage.forward
           : kind == ActionKind::backward_input ? of_stage.backward_input
                                                : of_stage.backward_weight;
  }
  // Latency from one stage to another.
  double message_between(int from, int to) const {
    return rank_of_stage[static_cast<std::size_t>(from)] == rank_of_stage[static_cast<std::size_t>(to)] ? 0 : message;
  }
};

// One letter: F, I or W of a stage.
struct Task {
  int stage = 0;
  ActionKind kind = ActionKind::forward;
  bool operator==(const Task&) const = default;
};
using Orders = std::vector<std::vector<Task>>;  // by rank

// The problem of a shape on the stages' ranks of `placed`. memory_limit 0: as much as 1F1B keeps, P micro-batches.
// REQUIRES: every stage of `placed` is on one rank.
OrderProblem order_problem(const ScheduleShape& shape, const ComputeSchedule& placed);

// The letters of a schedule, each B as I and W.
Orders orders_of(const ComputeSchedule& schedule);
ComputeSchedule schedule_of(const char* name, const OrderProblem& problem, const Orders& orders);

// Whether a rank's word can be run as far as the rank alone knows: F before I before W, within the limit.
bool is_legal_word(const OrderProblem& problem, const std::vector<Task>& word);

// Runs orders. Keeps its tables between runs, for many runs of one problem.
class OrderClock {
 public:
  explicit OrderClock(const OrderProblem& problem);

  // The makespan; infinity when the ranks wait for each other for ever, or as soon as it is sure to be above `cutoff`.
  // REQUIRES: is_legal_word() for each rank, with every letter `microbatches` times.
  double run(const Orders& orders, double cutoff = std::numeric_limits<double>::infinity());
  // Tasks that all runs together have timed: what they cost.
  double tasks_timed() const { return tasks_timed_; }

  struct Place {
    int rank = 0;
    int position = 0;
  };
  // After a run that ended: tasks without slack from the last end back to the start, each started by the one before it.
  void critical_path(const Orders& orders, std::vector<Place>& path) const;

 private:
  struct Run {
    double end = 0;
    int position = 0;
    bool done = false;
  };
  struct RankState {
    int position = 0;
    double clock = 0;
    double left = 0;  // time of the tasks to come
  };
  struct Started {
    double start = 0;
    double end = 0;
    int microbatch = 0;
  };
  std::size_t cell(int stage, int microbatch) const {
    return static_cast<std::size_t>(stage) * static_cast<std::size_t>(problem_.microbatches) +
           static_cast<std::size_t>(microbatch);
  }
  bool advance(int rank, const std::vector<Task>& word);
  double makespan_of(const Orders& orders) const;

  const OrderProblem& problem_;
  std::vector<Run> forwards_, inputs_;    // [stage][micro-batch]
  std::vector<std::array<int, 3>> next_;  // by stage: micro-batch of the next F, I, W
  std::vector<RankState> ranks_, at_start_;
  std::vector<std::vector<Started>> started_;  // by rank and position
  std::vector<int> ready_;
  double tasks_timed_ = 0;
};

}  // namespace stagecraft
