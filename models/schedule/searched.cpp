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
      : problem_(problem), priorities_(priorities), places_(problem.rank_of_place.size()) {
    ranks_.resize(static_cast<std::size_t>(problem.ranks));
    for (int place = 0; place < problem.places(); ++place) {
      ranks_[static_cast<std::size_t>(problem.rank_of(place))].places.push_back(place);
    }
    for (Rank& rank : ranks_) {
      std::stable_sort(rank.places.begin(), rank.places.end(),
                       [&](int a, int b) { return problem.stage_of(a) > problem.stage_of(b); });
    }
  }

  // Empty when the memory is full of forwards that wait for each other.
  Orders run() {
    Orders orders(ranks_.size());
    int tasks = 0;
    for (int place = 0; place < problem_.places(); ++place) tasks += 3 * problem_.units(place);
    std::vector<std::optional<Choice>> choices;  // by rank
    for (const Rank& rank : ranks_) choices.push_back(best_of(rank));
    for (int done = 0; done < tasks; ++done) {
      const auto first = std::min_element(choices.begin(), choices.end(), [](const auto& a, const auto& b) {
        return a && (!b || a->start < b->start);
      });
      if (!*first) return {};
      const Choice choice = **first;
      const int rank = problem_.rank_of(choice.task.place), to = problem_.target(choice.task.place, choice.task.kind);
      orders[static_cast<std::size_t>(rank)].push_back(choice.task);
      commit(choice);
      // The others see nothing of it.
      *first = best_of(ranks_[static_cast<std::size_t>(rank)]);
      if (to >= 0) {
        const auto other = static_cast<std::size_t>(problem_.rank_of(to));
        choices[other] = best_of(ranks_[other]);
      }
    }
    return orders;
  }

 private:
  struct Choice {
    Task task;
    double start;
  };
  struct Place {
    std::vector<double> forward_end, input_end;  // of those done
    int weights = 0;
  };
  struct Rank {
    std::vector<int> places;  // deepest stage first
    double clock = 0;
    int kept = 0;
  };
  const Place& at(int place) const { return places_[static_cast<std::size_t>(place)]; }
  static int count(const std::vector<double>& done) { return static_cast<int>(done.size()); }

  // When the next forward or input gradient of a place could start; empty while what it needs has not run.
  std::optional<double> start_of_next(int place, ActionKind kind, const Rank& rank) const {
    const bool forward = kind == ActionKind::forward;
    const int next = forward ? count(at(place).forward_end) : count(at(place).input_end);
    if (next == problem_.units(place)) return std::nullopt;
    if (!forward && count(at(place).forward_end) < problem_.forwards_before_input(next)) return std::nullopt;
    const int from = problem_.source(place, kind);
    if (from < 0) return rank.clock;
    const auto& needed = forward ? at(from).forward_end : at(from).input_end;
    if (count(needed) <= next) return std::nullopt;
    return std::max(rank.clock, needed[static_cast<std::size_t>(next)] + problem_.message_between(from, place));
  }
  bool may_run_ahead(int place, const Rank& rank) const {
    if (rank.kept >= problem_.activation_limit) return false;
    const int behind = (problem_.stages - problem_.stage_of(place)) * problem_.ranks;
    const int stages_behind_a_rank = (behind + problem_.stages - 1) / problem_.stages;
    return count(at(place).forward_end) - count(at(place).input_end) <
           priorities_.ahead * stages_behind_a_rank * problem_.slices;
  }

  std::optional<Choice> best_of(const Rank& rank) const {
    std::optional<Choice> next;
    const auto consider = [&](int place, ActionKind kind) {
      const std::optional<double> start = start_of_next(place, kind, rank);
      if (start && (!next || *start < next->start)) next = Choice{{place, kind}, *start};
    };
    for (const int place : rank.places) consider(place, ActionKind::backward_input);
    for (const int place : rank.places) {
      if (may_run_ahead(place, rank)) consider(place, ActionKind::forward);
    }
    if (next && next->start <= rank.clock) return next;
    for (const int place : rank.places) {
      if (at(place).weights == count(at(place).input_end)) continue;
      const Task weight{place, ActionKind::backward_weight};
      const bool fits = !next || rank.clock + problem_.time(place, weight.kind) <= next->start;
      if (fits || priorities_.fill_short_gaps) return Choice{weight, rank.clock};
    }
    return next;
  }

  void commit(const Choice& choice) {
    Place& place = places_[static_cast<std::size_t>(choice.task.place)];
    Rank& rank = ranks_[static_cast<std::size_t>(problem_.rank_of(choice.task.place))];
    rank.clock = choice.start + problem_.time(choice.task.place, choice.task.kind);
    if (choice.task.kind == ActionKind::forward) {
      place.forward_end.push_back(rank.clock);
      ++rank.kept;
    } else if (choice.task.kind == ActionKind::backward_input) {
      place.input_end.push_back(rank.clock);
    } else {
      ++place.weights;
      --rank.kept;
    }
  }

  const OrderProblem& problem_;
  Priorities priorities_;
  std::vector<Place> places_;
  std::vector<Rank> ranks_;
};

// Stage s on rank s mod P, one micro-batch after the other: keeps one of them.
ComputeSchedule one_by_one(const ScheduleShape& shape) {
  const int stages = shape.ranks * shape.stages_per_rank;
  ComputeSchedule schedule{"one-by-one", stages, shape.microbatches * shape.slices, {}};
  schedule.slices = shape.slices;
  schedule.ranks.resize(static_cast<std::size_t>(shape.ranks));
  const auto add = [&](int stage, ActionKind kind, int unit) {
    schedule.ranks[static_cast<std::size_t>(stage % shape.ranks)].push_back({kind, StageId{stage}, MicrobatchId{unit}});
  };
  for (int first = 0; first < schedule.microbatches; first += shape.slices) {
    for (int unit = first; unit < first + shape.slices; ++unit) {
      for (int s = 0; s < stages; ++s) add(s, ActionKind::forward, unit);
    }
    for (int unit = first + shape.slices; unit-- > first;) {
      for (int s = stages - 1; s >= 0; --s) {
        add(s, ActionKind::backward_input, unit);
        add(s, ActionKind::backward_weight, unit);
      }
    }
  }
  return schedule;
}

bool is_searchable(const ScheduleShape& shape, const ComputeSchedule& schedule) {
  if (schedule.forward_only || schedule.updates != WeightUpdates::synchronous) return false;
  return shape.both_directions || !Placement(schedule).is_bidirectional();
}

// The stages on certain ranks, and the best order of them known so far.
struct Start {
  std::string name;
  OrderProblem problem;
  Orders orders;
  double makespan = 0;
};

// One for each placement that a named schedule has and that has an order within the memory.
std::vector<Start> best_starts(const ScheduleShape& shape) {
  std::vector<Start> starts;
  const auto offer = [&](const ComputeSchedule& schedule) {
    Start start{schedule.name, order_problem(shape, schedule), {}, 0};
    start.orders = orders_of(start.problem, schedule);
    const bool is_legal = std::all_of(start.orders.begin(), start.orders.end(),
                                      [&](const auto& word) { return is_legal_word(start.problem, word); });
    if (!is_legal) return;
    start.makespan = OrderClock(start.problem).run(start.orders);
    const auto same = std::find_if(starts.begin(), starts.end(), [&](const Start& other) {
      return other.problem.rank_of_place == start.problem.rank_of_place && other.problem.ways == start.problem.ways;
    });
    if (same == starts.end()) {
      starts.push_back(std::move(start));
    } else if (start.makespan < same->makespan) {
      *same = std::move(start);
    }
  };
  offer(one_by_one(shape));
  for (const ScheduleKind& kind : schedule_kinds()) {
    if (kind.generate == generate_searched || !kind.refuse(shape).empty()) continue;
    const ComputeSchedule schedule = kind.generate(shape);
    if (is_searchable(shape, schedule)) offer(schedule);
  }
  return starts;
}

Start& shortest(std::vector<Start>& starts) {
  return *std::min_element(starts.begin(), starts.end(),
                           [](const Start& a, const Start& b) { return a.makespan < b.makespan; });
}

}  // namespace

std::string refuse_searched(const ScheduleShape& shape) {
  ScheduleShape whole = shape;
  whole.slices = 1;
  const std::string refusal = refuse_all_but(shape.stages_per_rank, whole);
  return refusal.empty() ? refuse_memory_below(1, shape) : refusal;
}

ComputeSchedule best_named_schedule(const ScheduleShape& shape) {
  std::vector<Start> starts = best_starts(shape);
  const Start& best = shortest(starts);
  return schedule_of(best.name.c_str(), best.problem, best.orders);
}

double improve_orders(const OrderProblem& problem, Orders& orders) {
  OrderClock clock(problem);
  double shortest = clock.run(orders);
  for (const int ahead : {1, 2, problem.most_units()}) {
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
  std::vector<Start> starts = best_starts(shape);
  const bool nothing_to_plan_by = shape.times.empty() && shape.message == 0 && shape.memory_limit == 0;
  if (!nothing_to_plan_by) {
    for (Start& start : starts) start.makespan = improve_orders(start.problem, start.orders);
  }
  const Start& best = shortest(starts);
  return schedule_of("searched", best.problem, best.orders);
}

}  // namespace stagecraft
