// The search over orders, its bound and the exact method for small cases.
#include "models/schedule/searched.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/schedule/branch_and_bound.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/lower_bound.hpp"

namespace stagecraft {
namespace {

// Numbers that do not depend on the standard library.
class Numbers {
 public:
  explicit Numbers(int seed) : state_(static_cast<std::uint32_t>(seed) * 2654435761U) {}
  int below(int count) {
    state_ = state_ * 1664525U + 1013904223U;
    return static_cast<int>((state_ >> 16) % static_cast<std::uint32_t>(count));
  }

 private:
  std::uint32_t state_;
};

// Times and latencies from 0 to 6; a limit from 1 to 4 micro-batches.
ScheduleShape unequal_shape(int seed, int ranks, int stages_per_rank, int microbatches) {
  Numbers numbers(seed);
  ScheduleShape shape{ranks, stages_per_rank, microbatches};
  for (int s = 0; s < ranks * stages_per_rank; ++s) {
    shape.times.push_back({1.0 + numbers.below(6), 1.0 + numbers.below(6), 0.0 + numbers.below(6)});
  }
  shape.message = numbers.below(4);
  shape.memory_limit = 1 + numbers.below(4);
  return shape;
}

OrderProblem problem_of(const ScheduleShape& shape) { return order_problem(shape, best_named_schedule(shape)); }

// Every legal word of one stage with `left` of each letter still to come.
void add_words(const OrderProblem& problem, std::array<int, 3> left, std::vector<Task>& word,
               std::vector<std::vector<Task>>& words) {
  if (!is_legal_word(problem, word)) return;
  if (left == std::array<int, 3>{}) return words.push_back(word);
  for (std::size_t letter = 0; letter < 3; ++letter) {
    if (left[letter] == 0) continue;
    const ActionKind kind =
        std::array{ActionKind::forward, ActionKind::backward_input, ActionKind::backward_weight}[letter];
    --left[letter];
    word.push_back({word.empty() ? 0 : word.front().place, kind});
    add_words(problem, left, word, words);
    word.pop_back();
    ++left[letter];
  }
}

double shortest_of_all_orders(const OrderProblem& problem) {
  const int m = problem.units(0);
  std::vector<std::vector<Task>> words;
  std::vector<Task> word;
  add_words(problem, {m, m, m}, word, words);
  std::vector<std::size_t> chosen(static_cast<std::size_t>(problem.ranks), 0);
  Orders orders(chosen.size());
  OrderClock clock(problem);
  double shortest = std::numeric_limits<double>::infinity();
  while (true) {
    for (std::size_t rank = 0; rank < chosen.size(); ++rank) {
      orders[rank] = words[chosen[rank]];
      for (Task& task : orders[rank]) task.place = static_cast<int>(rank);
    }
    shortest = std::min(shortest, clock.run(orders));
    std::size_t rank = 0;
    while (rank < chosen.size() && ++chosen[rank] == words.size()) chosen[rank++] = 0;
    if (rank == chosen.size()) return shortest;
  }
}

TEST(OrderClock, AgreesWithTheClockOfSchedules) {
  int both_directions = 0, sliced = 0;
  for (const ScheduleKind& kind : schedule_kinds()) {
    for (const auto& [stages_per_rank, slices] : {std::array{1, 1}, {2, 1}, {1, 2}, {1, 4}}) {
      ScheduleShape shape{4, stages_per_rank, 8};
      shape.slices = slices;
      if (kind.name == "searched" || !kind.refuse(shape).empty()) continue;
      ComputeSchedule schedule = kind.generate(shape);
      if (schedule.forward_only) continue;
      shape.times.assign(static_cast<std::size_t>(schedule.stages), {4, 8, 4});
      shape.message = 1;
      const OrderProblem problem = order_problem(shape, schedule);
      const ComputeSchedule split = schedule_of("split", problem, orders_of(problem, schedule));
      EXPECT_TRUE(check(split).empty()) << kind.name;
      EXPECT_EQ(OrderClock(problem).run(orders_of(problem, schedule)), clock_schedule(split, problem.times, 1).makespan)
          << kind.name;
      both_directions += problem.ways.size() == 2 ? 1 : 0;
      sliced += slices > 1 ? 1 : 0;
    }
  }
  EXPECT_EQ(both_directions, 3);  // chimera, dualpipe, bitpipe
  EXPECT_EQ(sliced, 2);           // seq-1f1b
}

TEST(OrderClock, FindsACriticalPathWithoutGaps) {
  const ScheduleShape shape = unequal_shape(3, 4, 1, 6);
  const ComputeSchedule schedule = make_schedule("1f1b", shape);
  const OrderProblem problem = order_problem(shape, schedule);
  const Orders orders = orders_of(problem, schedule);
  OrderClock clock(problem);
  const double makespan = clock.run(orders);
  std::vector<OrderClock::Place> path;
  clock.critical_path(orders, path);
  double length = 0;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const Task& task = orders[static_cast<std::size_t>(path[i].rank)][static_cast<std::size_t>(path[i].position)];
    length += problem.time(task.place, task.kind);
    if (i > 0 && path[i].rank != path[i - 1].rank) length += problem.message;
  }
  EXPECT_EQ(length, makespan);
}

TEST(OrderClock, SaysThatRanksWaitForEachOtherForEver) {
  const OrderProblem problem{2, 2, {{0, 1}}, {0, 1}, {{}, {}}};
  const Task f0{0, ActionKind::forward}, i0{0, ActionKind::backward_input}, w0{0, ActionKind::backward_weight};
  const Task f1{1, ActionKind::forward}, i1{1, ActionKind::backward_input}, w1{1, ActionKind::backward_weight};
  EXPECT_EQ(OrderClock(problem).run({{f0, i0, w0, f0, i0, w0}, {f1, f1, i1, i1, w1, w1}}),
            std::numeric_limits<double>::infinity());
  EXPECT_EQ(OrderClock(problem).run({{f0, f0, i0, i0, w0, w0}, {f1, f1, i1, i1, w1, w1}}), 8);
}

TEST(BranchAndBound, FindsWhatTryingEveryOrderFinds) {
  int better_than_named = 0;
  for (int seed = 1; seed <= 60; ++seed) {
    const ScheduleShape shape = unequal_shape(seed, 2 + seed % 2, 1, 2 + seed / 2 % 2);
    const ComputeSchedule named = best_named_schedule(shape);
    const OrderProblem problem = order_problem(shape, named);
    const ProvenOrder best = branch_and_bound(problem);
    EXPECT_EQ(best.makespan, shortest_of_all_orders(problem)) << "seed " << seed;
    EXPECT_EQ(OrderClock(problem).run(best.orders), best.makespan) << "seed " << seed;
    for (const auto& word : best.orders) EXPECT_TRUE(is_legal_word(problem, word));
    better_than_named += best.makespan < OrderClock(problem).run(orders_of(problem, named)) ? 1 : 0;
  }
  EXPECT_GE(better_than_named, 6);
}

TEST(LowerBound, IsNeverAboveTheOptimumAndMostlyEqual) {
  int equal = 0;
  for (int seed = 1; seed <= 300; ++seed) {
    const OrderProblem problem = problem_of(unequal_shape(seed, 1 + seed % 3, 1, 1 + seed / 3 % 4));
    const double optimum = branch_and_bound(problem).makespan;
    EXPECT_LE(lower_bound(problem), optimum) << "seed " << seed;
    equal += lower_bound(problem) == optimum ? 1 : 0;
  }
  EXPECT_GT(equal, 270);
}

TEST(LowerBound, IsBelowEveryNamedScheduleThatFits) {
  for (int seed = 1; seed <= 60; ++seed) {
    for (const int stages_per_rank : {1, 2, 4}) {
      ScheduleShape shape = unequal_shape(seed, 2 + seed % 3, stages_per_rank, 4 + seed % 9);
      shape.memory_limit = shape.microbatches;
      for (const ScheduleKind& kind : schedule_kinds()) {
        if (kind.name == "searched" || !kind.refuse(shape).empty()) continue;
        const ComputeSchedule schedule = kind.generate(shape);
        if (schedule.forward_only) continue;
        const OrderProblem problem = order_problem(shape, schedule);
        EXPECT_LE(lower_bound(problem), OrderClock(problem).run(orders_of(problem, schedule)))
            << kind.name << " seed " << seed;
      }
    }
  }
}

TEST(LowerBound, IsExactWhereAPipelineHasNoBubble) {
  // The first rank works from the start, and the way out ends with its own last weight gradient.
  const ScheduleShape shape{4, 1, 8};
  ScheduleShape roomy = shape;
  roomy.memory_limit = 8;
  const OrderProblem problem = order_problem(roomy, make_schedule("zb-h2", shape));
  EXPECT_EQ(lower_bound(problem), 3 * 8 + 3);
  EXPECT_EQ(OrderClock(problem).run(orders_of(problem, make_schedule("zb-h2", shape))), 3 * 8 + 3);
}

TEST(Searched, FindsTheOptimumOfSmallProblems) {
  int better_than_named = 0;
  for (int seed = 1; seed <= 300; ++seed) {
    const ScheduleShape shape = unequal_shape(seed, 2 + seed % 2, 1, 3 + seed / 2 % 2);
    const OrderProblem problem = problem_of(shape);
    const double found = clock_schedule(make_schedule("searched", shape), shape.times, shape.message).makespan;
    EXPECT_EQ(found, branch_and_bound(problem).makespan) << "seed " << seed;
    better_than_named += found < OrderClock(problem).run(orders_of(problem, best_named_schedule(shape))) ? 1 : 0;
  }
  EXPECT_GT(better_than_named, 40);
}

double makespan_of(const ScheduleShape& shape, const ComputeSchedule& schedule) {
  return clock_schedule(schedule, order_problem(shape, schedule).times, shape.message).makespan;
}

// Within the memory, by the checker's count.
bool fits(const ScheduleShape& shape, const ComputeSchedule& schedule) {
  const std::vector<int> peaks = peak_in_flight_by_rank(schedule);
  return *std::max_element(peaks.begin(), peaks.end()) <= shape.memory_limit * shape.stages_per_rank * shape.slices;
}

TEST(Searched, IsNeverWorseThanAnyNamedScheduleThatFitsTheMemory) {
  int beaten = 0;
  for (int seed = 1; seed <= 8; ++seed) {
    for (const auto& [stages_per_rank, slices] : {std::array{1, 1}, {2, 1}, {1, 2}}) {
      ScheduleShape shape = unequal_shape(seed, 2 + seed % 4, stages_per_rank, 6 + seed % 5);
      shape.slices = slices;
      shape.both_directions = seed % 2 == 0;
      const ComputeSchedule schedule = make_schedule("searched", shape);
      EXPECT_TRUE(check(schedule).empty());
      EXPECT_TRUE(fits(shape, schedule));
      const double makespan = makespan_of(shape, schedule);
      EXPECT_GE(makespan * (1 + 1e-9), lower_bound(order_problem(shape, schedule)));
      for (const ScheduleKind& kind : schedule_kinds()) {
        if (kind.name == "searched" || !kind.refuse(shape).empty()) continue;
        const ComputeSchedule named = make_schedule(kind.name, shape);
        if (named.forward_only || named.updates != WeightUpdates::synchronous || !fits(shape, named)) continue;
        if (Placement(named).is_bidirectional() && !shape.both_directions) continue;
        EXPECT_LE(makespan, makespan_of(shape, named) * (1 + 1e-9)) << kind.name << " " << seed;
        beaten += makespan < makespan_of(shape, named) ? 1 : 0;
      }
    }
  }
  EXPECT_GT(beaten, 30);
}

TEST(Searched, PutsStagesOnTwoRanksOnlyIfItMay) {
  ScheduleShape shape{4, 1, 8};
  shape.times.assign(4, {1, 1, 1});
  shape.memory_limit = 5;
  const ComputeSchedule one_way = make_schedule("searched", shape);
  EXPECT_FALSE(Placement(one_way).is_bidirectional());
  EXPECT_EQ(makespan_of(shape, one_way), 27);  // 3 M + P - 1, as ZB-H2
  shape.both_directions = true;
  const ComputeSchedule both = make_schedule("searched", shape);
  EXPECT_TRUE(Placement(both).is_bidirectional());
  EXPECT_LT(makespan_of(shape, both), 27);
  EXPECT_TRUE(fits(shape, both));
}

TEST(Searched, KnowsNoLimitOfMemoryUnlessOneIsGiven) {
  ScheduleShape shape{4, 1, 8};
  shape.times.assign(4, {1, 1, 1});
  EXPECT_EQ(makespan_of(shape, make_schedule("searched", shape)), 27);
  shape.memory_limit = 2;
  EXPECT_GT(makespan_of(shape, make_schedule("searched", shape)), 27);
}

TEST(Searched, GivesTheSameScheduleEachTime) {
  const ScheduleShape shape = unequal_shape(7, 4, 1, 8);
  EXPECT_EQ(make_schedule("searched", shape), make_schedule("searched", shape));
}

TEST(Searched, WithNothingToPlanByIsTheBestNamedSchedule) {
  const ComputeSchedule named = best_named_schedule({4, 1, 8});
  EXPECT_EQ(named.name, "zb-h1");
  EXPECT_EQ(make_schedule("searched", {4, 1, 8}).ranks, named.ranks);
}

TEST(Searched, RunsOneMicrobatchAtATimeWhereTheMemoryHoldsNoMore) {
  ScheduleShape shape{3, 1, 4};
  shape.memory_limit = 1;
  // Forwards, input gradients, then the last weight gradient: (3 + 3) a micro-batch, each of the first rank's weight
  // gradients in between.
  EXPECT_EQ(clock_schedule(make_schedule("searched", shape)).makespan, 4 * 7);
  EXPECT_EQ(lower_bound(problem_of(shape)), 4 * 7);
}

}  // namespace
}  // namespace stagecraft
