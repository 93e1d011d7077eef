// The problem that searched.hpp, branch_and_bound.hpp and lower_bound.hpp are about: in which order shall each rank run
// its forwards, input gradients and weight gradients, so that the last one ends soonest?
//
// Ranks run their lists in order; a computation starts when its rank is free and its input is there; a message between
// ranks takes `message` and waits for nothing else. A rank keeps an activation from the forward to the weight gradient,
// at most `activation_limit` of them. The objective is the makespan: the end of the last computation.
//
// Micro-batches take ways through the ranks: all the same one, or each direction its own where stages are on two ranks.
// A stage on a way is a place. With token slices a slice is what a micro-batch is without: a unit.
//
// Two things need no search:
//   - Backwards are always split: I and W side by side in place of B start nothing later; the gradient leaves sooner.
//   - The units of a way are alike, so each place may take them in order. In any schedule, when the k-th forward of a
//     place starts, k forwards of the one before have arrived; so the k-th may as well be unit k. Likewise for I and W,
//     where the slices of a micro-batch come last to first; the k-th I then needs the forwards of all slices of
//     micro-batch k / slices, and any order has run as many before k input gradients have started.
// So an order is, for each rank, a word over (place, F | I | W): the n-th time that a letter occurs is unit n.
#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct OrderProblem {
  int ranks = 1;
  int stages = 1;
  std::vector<std::vector<int>> ways;  // by way: its units, ascending, as ComputeSchedule numbers them
  std::vector<int> rank_of_place;      // place: way * stages + stage
  std::vector<StageTimes> times;       // by stage, of a unit
  double message = 0;
  int activation_limit = std::numeric_limits<int>::max();  // of one stage and unit, on a rank
  int slices = 1;

  int places() const { return static_cast<int>(rank_of_place.size()); }
  int rank_of(int place) const { return rank_of_place[static_cast<std::size_t>(place)]; }
  int stage_of(int place) const { return place % stages; }
  // Units that pass the place.
  int units(int place) const { return static_cast<int>(ways[static_cast<std::size_t>(place / stages)].size()); }
  int most_units() const;
  // Where a forward's input, or an input gradient's, comes from; -1: from outside.
  int source(int place, ActionKind kind) const {
    if (kind == ActionKind::forward) return stage_of(place) == 0 ? -1 : place - 1;
    return stage_of(place) + 1 == stages ? -1 : place + 1;
  }
  // Where its result goes; -1: nowhere.
  int target(int place, ActionKind kind) const {
    return source(place, kind == ActionKind::forward ? ActionKind::backward_input : ActionKind::forward);
  }
  // Forwards that a place needs before its n-th input gradient, counted from 0.
  int forwards_before_input(int n) const { return (n / slices + 1) * slices; }
  double time(int place, ActionKind kind) const {
    const StageTimes& of_stage = times[static_cast<std::size_t>(stage_of(place))];
    return kind == ActionKind::forward          ? of_stage.forward
           : kind == ActionKind::backward_input ? of_stage.backward_input
                                                : of_stage.backward_weight;
  }
  // Latency from one place to another.
  double message_between(int from, int to) const { return rank_of(from) == rank_of(to) ? 0 : message; }
};

// One letter: F, I or W of a place.
struct Task {
  int place = 0;
  ActionKind kind = ActionKind::forward;
  bool operator==(const Task&) const = default;
};
using Orders = std::vector<std::vector<Task>>;  // by rank

// The problem of a shape on the ways of `placed`. shape.times are those of whole micro-batches; memory_limit 0: none.
// REQUIRES: a synchronous training schedule with the shape's slices.
OrderProblem order_problem(const ScheduleShape& shape, const ComputeSchedule& placed);

// The letters of a schedule, each B as I and W. REQUIRES: a schedule on the problem's ways.
Orders orders_of(const OrderProblem& problem, const ComputeSchedule& schedule);
ComputeSchedule schedule_of(const char* name, const OrderProblem& problem, const Orders& orders);

// Whether a rank's word can be run as far as the rank alone knows: F before I before W, within the limit.
bool is_legal_word(const OrderProblem& problem, const std::vector<Task>& word);

// Runs orders. Keeps its tables between runs, for many runs of one problem.
class OrderClock {
 public:
  explicit OrderClock(const OrderProblem& problem);

  // The makespan; infinity when the ranks wait for each other for ever, or as soon as it is sure to be above `cutoff`.
  // REQUIRES: is_legal_word() for each rank, with every letter as often as units pass its place.
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
    int unit = 0;
  };
  std::size_t cell(int place, int unit) const {
    return static_cast<std::size_t>(place) * most_units_ + static_cast<std::size_t>(unit);
  }
  bool advance(int rank, const std::vector<Task>& word);
  double makespan_of(const Orders& orders) const;

  const OrderProblem& problem_;
  std::size_t most_units_;
  std::vector<Run> forwards_, inputs_;    // [place][unit]
  std::vector<std::array<int, 3>> next_;  // by place: unit of the next F, I, W
  std::vector<RankState> ranks_, at_start_;
  std::vector<std::vector<Started>> started_;  // by rank and position
  std::vector<int> ready_;
  double tasks_timed_ = 0;
};

}  // namespace stagecraft
