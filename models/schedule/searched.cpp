#include "models/schedule/searched.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <optional>
#include <random>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/lower_bound.hpp"

namespace stagecraft {
namespace {

// How many tasks are looked at in all: in so many moves for each task, but no more than take about half a second.
constexpr double effort_a_task_squared = 500, most_effort = 2e7;

// std::uniform_int_distribution may differ between standard libraries; this does not.
class Random {
 public:
  // 0 .. count-1; the bias of the remainder does not matter here.
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(bits_() % count); }
  // 0 .. 1, without 1.
  double fraction() { return static_cast<double>(bits_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 bits_{1};
};

class Annealing {
 public:
  Annealing(const OrderProblem& problem, Orders& orders)
      : problem_(problem), clock_(problem), floor_(lower_bound(problem)), now_(orders), best_(orders) {
    double tasks = 0;
    for (const auto& word : orders) tasks += static_cast<double>(word.size());
    effort_ = std::min(most_effort, effort_a_task_squared * tasks * tasks);
    reach_ = 3 * static_cast<std::size_t>(problem.ranks) + 6;
    double work = 0;
    for (const StageTimes& times : problem.times) work += times.forward + times.backward_input + times.backward_weight;
    // With few steps there is no time to come back from a detour.
    hot_ = 0.5 * work / (3 * static_cast<double>(problem.times.size())) * std::min(1.0, effort_ / tasks / 2e4);
  }

  double run() {
    makespan_ = best_makespan_ = clock_.run(now_);
    clock_.critical_path(now_, path_);
    while (spent() < effort_ && best_makespan_ > floor_) {
      const double left = 1 - spent() / effort_;
      try_move(hot_ * left * left);
    }
    return best_makespan_;
  }
  Orders take_best() { return std::move(best_); }

 private:
  // In tasks looked at: what the search has cost so far. Grows with every move, legal or not.
  double spent() const { return clock_.tasks_timed() + tasks_checked_; }

  void try_move(double temperature) {
    const OrderClock::Place from = path_[random_.below(path_.size())];
    std::vector<Task>& word = now_[static_cast<std::size_t>(from.rank)];
    const auto position = static_cast<std::size_t>(from.position);
    const std::size_t first = position < reach_ ? 0 : position - reach_;
    const std::size_t last = std::min(word.size() - 1, position + reach_);
    const std::size_t to = first + random_.below(last - first + 1);
    tasks_checked_ += static_cast<double>(word.size());
    if (to == position) return;
    rotate(word, position, to);
    // Accepts what is worse by d with probability exp(-d / temperature).
    const double acceptable = makespan_ - temperature * std::log(1 - random_.fraction());
    const double makespan =
        is_legal_word(problem_, word) ? clock_.run(now_, acceptable) : std::numeric_limits<double>::infinity();
    if (makespan > acceptable) {
      rotate(word, to, position);
      return;
    }
    makespan_ = makespan;
    clock_.critical_path(now_, path_);
    if (makespan < best_makespan_) {
      best_makespan_ = makespan;
      best_ = now_;
    }
  }

  static void rotate(std::vector<Task>& word, std::size_t from, std::size_t to) {
    const auto at = [&](std::size_t i) { return word.begin() + static_cast<std::ptrdiff_t>(i); };
    from < to ? std::rotate(at(from), at(from + 1), at(to + 1)) : std::rotate(at(to), at(from), at(from + 1));
  }

  const OrderProblem& problem_;
  OrderClock clock_;
  double floor_;
  Random random_;
  Orders now_, best_;
  double makespan_ = 0, best_makespan_ = 0;
  std::vector<OrderClock::Place> path_;
  double effort_ = 0;
  double tasks_checked_ = 0;
  std::size_t reach_ = 0;
  double hot_ = 0;
};

// How list_orders() chooses.
struct Priorities {
  int ahead;             // forwards that a stage may be ahead of its gradients, times the stages behind it a rank
  bool fill_short_gaps;  // whether a weight gradient also goes into a gap that is too short for it
};

// Orders made task by task, always the one that can start first: on a rank an input gradient before a forward, that of
// the deepest stage first, and a weight gradient where neither is there in time or the memory is full.
class ListScheduler {
 public:
  ListScheduler(const OrderProblem& problem, Priorities priorities)
      : problem_(problem), priorities_(priorities), stages_(problem.rank_of_stage.size()) {
    ranks_.resize(static_cast<std::size_t>(problem.ranks));
    for (std::size_t s = stages_.size(); s-- > 0;) {
      ranks_[static_cast<std::size_t>(problem.rank_of_stage[s])].stages.push_back(static_cast<int>(s));
    }
  }

  // Empty when the memory is full of forwards that wait for each other.
  Orders run() {
    Orders orders(ranks_.size());
    const std::size_t tasks = 3 * stages_.size() * static_cast<std::size_t>(problem_.microbatches);
    for (std::size_t done = 0; done < tasks; ++done) {
      std::optional<Choice> first;
      for (const Rank& rank : ranks_) {
        const std::optional<Choice> choice = best_of(rank);
        if (choice && (!first || choice->start < first->start)) first = choice;
      }
      if (!first) return {};
      orders[static_cast<std::size_t>(problem_.rank_of_stage[static_cast<std::size_t>(first->task.stage)])].push_back(
          first->task);
      commit(*first);
    }
    return orders;
  }

 private:
  struct Choice {
    Task task;
    double start;
  };
  struct Stage {
    std::vector<double> forward_end, input_end;  // of those done
    int weights = 0;
  };
  struct Rank {
    std::vector<int> stages;  // deepest first
    double clock = 0;
    int kept = 0;
  };
  const Stage& stage(int s) const { return stages_[static_cast<std::size_t>(s)]; }
  static int count(const std::vector<double>& done) { return static_cast<int>(done.size()); }

  // When the next forward or input gradient of a stage could start; empty while what it needs has not run.
  std::optional<double> start_of_next(int s, ActionKind kind, const Rank& rank) const {
    const bool forward = kind == ActionKind::forward;
    const auto next = static_cast<std::size_t>(forward ? count(stage(s).forward_end) : count(stage(s).input_end));
    if (next == static_cast<std::size_t>(problem_.microbatches)) return std::nullopt;
    if (!forward && stage(s).forward_end.size() <= next) return std::nullopt;
    const int from = s + (forward ? -1 : 1);
    if (from < 0 || from == problem_.stages()) return rank.clock;
    const auto& needed = forward ? stage(from).forward_end : stage(from).input_end;
    if (needed.size() <= next) return std::nullopt;
    return std::max(rank.clock, needed[next] + problem_.message_between(from, s));
  }
  bool may_run_ahead(int s, const Rank& rank) const {
    if (rank.kept >= problem_.activation_limit) return false;
    const int behind = (problem_.stages() - s) * problem_.ranks;
    const int stages_behind_a_rank = (behind + problem_.stages() - 1) / problem_.stages();
    return count(stage(s).forward_end) - count(stage(s).input_end) < priorities_.ahead * stages_behind_a_rank;
  }

  std::optional<Choice> best_of(const Rank& rank) const {
    std::optional<Choice> next;
    const auto consider = [&](int s, ActionKind kind) {
      const std::optional<double> start = start_of_next(s, kind, rank);
      if (start && (!next || *start < next->start)) next = Choice{{s, kind}, *start};
    };
    for (const int s : rank.stages) consider(s, ActionKind::backward_input);
    for (const int s : rank.stages) {
      if (may_run_ahead(s, rank)) consider(s, ActionKind::forward);
    }
    if (next && next->start <= rank.clock) return next;
    for (const int s : rank.stages) {
      if (stage(s).weights == count(stage(s).input_end)) continue;
      const Task weight{s, ActionKind::backward_weight};
      const bool fits = !next || rank.clock + problem_.time(s, weight.kind) <= next->start;
      if (fits || priorities_.fill_short_gaps) return Choice{weight, rank.clock};
    }
    return next;
  }

  void commit(const Choice& choice) {
    const auto s = static_cast<std::size_t>(choice.task.stage);
    Rank& rank = ranks_[static_cast<std::size_t>(problem_.rank_of_stage[s])];
    rank.clock = choice.start + problem_.time(choice.task.stage, choice.task.kind);
    if (choice.task.kind == ActionKind::forward) {
      stages_[s].forward_end.push_back(rank.clock);
      ++rank.kept;
    } else if (choice.task.kind == ActionKind::backward_input) {
      stages_[s].input_end.push_back(rank.clock);
    } else {
      ++stages_[s].weights;
      --rank.kept;
    }
  }

  const OrderProblem& problem_;
  Priorities priorities_;
  std::vector<Stage> stages_;
  std::vector<Rank> ranks_;
};

// One micro-batch after the other: keeps one of them.
ComputeSchedule one_by_one(const ScheduleShape& shape) {
  const int stages = shape.ranks * shape.stages_per_rank;
  ComputeSchedule schedule{"one-by-one", stages, shape.microbatches, {}};
  schedule.ranks.resize(static_cast<std::size_t>(shape.ranks));
  const auto add = [&](int stage, ActionKind kind, int m) {
    schedule.ranks[static_cast<std::size_t>(stage % shape.ranks)].push_back({kind, StageId{stage}, MicrobatchId{m}});
  };
  for (int m = 0; m < shape.microbatches; ++m) {
    for (int s = 0; s < stages; ++s) add(s, ActionKind::forward, m);
    for (int s = stages - 1; s >= 0; --s) {
      add(s, ActionKind::backward_input, m);
      add(s, ActionKind::backward_weight, m);
    }
  }
  return schedule;
}

bool is_searchable(const ComputeSchedule& schedule) {
  if (schedule.forward_only || schedule.slices != 1 || schedule.updates != WeightUpdates::synchronous) return false;
  const Placement placement(schedule);
  for (std::int32_t s = 0; s < schedule.stages; ++s) {
    if (placement.is_shared(StageId{s})) return false;
  }
  return true;
}

}  // namespace

std::string refuse_searched(const ScheduleShape& shape) {
  std::string refusal = refuse_all_but(shape.stages_per_rank, shape);
  return refusal.empty() ? refuse_memory_below(1, shape) : refusal;
}

ComputeSchedule best_named_schedule(const ScheduleShape& shape) {
  ComputeSchedule best = one_by_one(shape);
  double shortest = OrderClock(order_problem(shape, best)).run(orders_of(best));
  for (const ScheduleKind& kind : schedule_kinds()) {
    if (kind.generate == generate_searched || !kind.refuse(shape).empty()) continue;
    ComputeSchedule schedule = kind.generate(shape);
    if (!is_searchable(schedule)) continue;
    const OrderProblem problem = order_problem(shape, schedule);
    const Orders orders = orders_of(schedule);
    if (!std::all_of(orders.begin(), orders.end(), [&](const auto& word) { return is_legal_word(problem, word); })) {
      continue;
    }
    const double makespan = OrderClock(problem).run(orders);
    if (makespan >= shortest) continue;
    shortest = makespan;
    best = std::move(schedule);
  }
  return best;
}

double improve_orders(const OrderProblem& problem, Orders& orders) {
  OrderClock clock(problem);
  double shortest = clock.run(orders);
  for (const int ahead : {1, 2, problem.microbatches}) {
    for (const bool fill : {false, true}) {
      Orders listed = ListScheduler(problem, {ahead, fill}).run();
      if (listed.empty()) continue;
      const double makespan = clock.run(listed);
      if (makespan >= shortest) continue;
      shortest = makespan;
      orders = std::move(listed);
    }
  }
  Annealing annealing(problem, orders);
  const double makespan = annealing.run();
  orders = annealing.take_best();
  return makespan;
}

ComputeSchedule generate_searched(const ScheduleShape& shape) {
  assert(refuse_searched(shape).empty());
  const ComputeSchedule start = best_named_schedule(shape);
  const OrderProblem problem = order_problem(shape, start);
  Orders orders = orders_of(start);
  const bool nothing_to_plan_by = shape.times.empty() && shape.message == 0 && shape.memory_limit == 0;
  if (!nothing_to_plan_by) improve_orders(problem, orders);
  return schedule_of("searched", problem, orders);
}

}  // namespace stagecraft
