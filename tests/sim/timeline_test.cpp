#include "sim/timeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/models/schedule/schedules.hpp"
#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

using test::stage_cost;

// `stages` equal stages with hops of latency c and endless bandwidth.
StepCosts equal_costs(int stages, const StageCost& cost, double latency = 0) {
  StepCosts costs;
  const auto count = static_cast<std::size_t>(stages);
  costs.stages.assign(count, cost);
  costs.hops.assign(count - 1, Link{Seconds(latency), BytesPerSecond(1)});
  costs.reduce_grad.assign(count, Seconds(0));
  return costs;
}

double makespan(const ComputeSchedule& schedule, const StepCosts& costs, const LoweringOptions& options = {}) {
  return Timeline(lower(schedule, options)).makespan(costs).value();
}

double makespan(std::string_view name, int ranks, int microbatches, const StepCosts& costs) {
  return makespan(make_schedule(name, {ranks, 1, microbatches}), costs);
}

TEST(TimelineClosedForms, EqualStagesTakeMPlusPMinusOnePeriods) {
  std::mt19937 random(1);
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (int microbatches = 1; microbatches <= 20; ++microbatches) {
      const int f = 1 + static_cast<int>(random() % 9), i = static_cast<int>(random() % 9),
                w = 1 + static_cast<int>(random() % 9);
      const StepCosts costs = equal_costs(ranks, stage_cost(f, i, w));
      const int expected = (microbatches + ranks - 1) * (f + i + w);
      EXPECT_EQ(makespan("gpipe", ranks, microbatches, costs), expected) << ranks << " " << microbatches;
      EXPECT_EQ(makespan("1f1b", ranks, microbatches, costs), expected) << ranks << " " << microbatches;
    }
  }
}

TEST(TimelineClosedForms, GPipeWithUnequalStagesIsAFlowShop) {
  std::mt19937 random(2);
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int microbatches = 1; microbatches <= 12; ++microbatches) {
      StepCosts costs = equal_costs(ranks, {});
      int sum = 0, most_forward = 0, most_backward = 0;
      for (StageCost& stage : costs.stages) {
        const int f = static_cast<int>(random() % 10), b = static_cast<int>(random() % 10);
        stage = stage_cost(f, b, 0);
        sum += f + b;
        most_forward = std::max(most_forward, f);
        most_backward = std::max(most_backward, b);
      }
      EXPECT_EQ(makespan("gpipe", ranks, microbatches, costs),
                sum + (microbatches - 1) * (most_forward + most_backward));
    }
  }
}

TEST(TimelineClosedForms, LatencyAddsARoundTripToGPipe) {
  for (int ranks = 1; ranks <= 7; ++ranks) {
    for (int microbatches = 1; microbatches <= 9; ++microbatches) {
      for (int c = 0; c <= 12; c += 3) {
        EXPECT_EQ(makespan("gpipe", ranks, microbatches, equal_costs(ranks, stage_cost(4, 3, 2), c)),
                  (microbatches + ranks - 1) * 9 + 2 * (ranks - 1) * c);
      }
    }
  }
}

TEST(TimelineClosedForms, LatencyAddsARoundTripToEveryBlockOfOneFOneB) {
  for (int p = 2; p <= 9; ++p) {
    for (int m = 1; m <= 39; ++m) {
      for (int c = 0; c <= 8; c += 2) {  // up to beyond the forward's 4
        const int latencies = m == 1 ? 2 * (p - 1) : 2 * (p - 1) * (1 + (m - 2) / p) + 2 * ((m - 2) % p);
        EXPECT_EQ(makespan("1f1b", p, m, equal_costs(p, stage_cost(4, 3, 2), c)), (m + p - 1) * 9 + latencies * c)
            << p << " " << m << " " << c;
      }
    }
  }
}

// Qi et al. 2024, arXiv 2401.10241: Table 9's profiled times in ms (T_F, T_B, T_W, T_comm), Table 5's bubble rates of
// 1F1B. Rate: (S - m (T_F + T_B + T_W)) / S, S the longest span of a rank.
TEST(TimelineClosedForms, ReproducesTheZeroBubblePapersOneFOneBBubbles) {
  struct Row {
    int p, m;
    double f, b, w, comm, bubble;
  };
  const Row rows[] = {
      {8, 24, 18.522, 18.086, 9.337, 0.601, 0.2431},  {8, 64, 18.546, 18.097, 9.321, 0.762, 0.1240},
      {8, 24, 29.718, 29.444, 19.927, 0.527, 0.2347}, {8, 64, 29.935, 29.621, 19.388, 0.535, 0.1091},
      {16, 48, 11.347, 11.248, 8.132, 0.377, 0.2552}, {16, 128, 11.325, 11.308, 8.109, 0.378, 0.1251},
      {32, 96, 10.419, 10.207, 7.715, 0.408, 0.2646}, {32, 256, 10.402, 10.248, 7.698, 0.460, 0.1352},
  };
  for (const Row& row : rows) {
    const LoweredSchedule schedule = lower(make_schedule("1f1b", {row.p, 1, row.m}), {});
    std::vector<Timeline::Span> spans;
    Timeline(schedule).evaluate(equal_costs(row.p, stage_cost(row.f, row.b, row.w), row.comm), spans);
    double longest = 0;
    std::size_t at = 0;
    for (const auto& actions : schedule.ranks) {
      double first = 1e300, last = 0;
      for (const Action& action : actions) {
        if (is_compute(action.kind)) {
          first = std::min(first, spans[at].start.value());
          last = std::max(last, spans[at].end.value());
        }
        ++at;
      }
      longest = std::max(longest, last - first);
    }
    const double rate = (longest - row.m * (row.f + row.b + row.w)) / longest;
    EXPECT_NEAR(rate, row.bubble, 0.00005 + 1e-9) << "p = " << row.p << ", m = " << row.m << ", T_F = " << row.f;
  }
}

// The span of an action, by its text.
std::map<std::string, Timeline::Span> spans_of(const LoweredSchedule& schedule, const StepCosts& costs) {
  std::vector<Timeline::Span> spans;
  Timeline(schedule).evaluate(costs, spans);
  std::map<std::string, Timeline::Span> named;
  std::size_t at = 0;
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) named[to_string(action)] = spans[at++];
  }
  return named;
}

Timeline::Span span(double start, double end) { return {Seconds(start), Seconds(end)}; }

TEST(Timeline, TellsWhenEveryActionRuns) {
  StepCosts costs = equal_costs(2, stage_cost(3, 1, 1, 20), 1);
  costs.hops[0].bandwidth = BytesPerSecond(10);  // a message takes 1 + 20 / 10 = 3
  costs.stages[1] = stage_cost(5, 2, 2);
  costs.stages[0].optimizer = Seconds(7);
  const auto spans = spans_of(lower(make_schedule("gpipe", {2, 1, 2}), {}), costs);
  EXPECT_EQ(spans.at("0F1"), span(3, 6));
  EXPECT_EQ(spans.at("0SEND_F0"), span(3, 6));  // the rank computes meanwhile
  EXPECT_EQ(spans.at("1RECV_F0"), span(0, 6));  // the rank waits
  EXPECT_EQ(spans.at("1F0"), span(6, 11));
  EXPECT_EQ(spans.at("1RECV_F1"), span(11, 11));  // there already: sent at 6, arrived at 9
  EXPECT_EQ(spans.at("1B0"), span(16, 20));
  EXPECT_EQ(spans.at("1SEND_B0"), span(20, 23));
  EXPECT_EQ(spans.at("0RECV_B0"), span(6, 23));
  EXPECT_EQ(spans.at("0B1"), span(27, 29));
  EXPECT_EQ(spans.at("0STEP"), span(29, 36));
  EXPECT_EQ(spans.at("1STEP"), span(24, 24));
}

TEST(Timeline, LetsASumOverlapTheOtherStageOfItsRank) {
  StepCosts costs = equal_costs(2, stage_cost(1, 2, 3));
  costs.reduce_grad = {Seconds(10), Seconds(4)};
  costs.stages[1].optimizer = Seconds(1);
  const ComputeSchedule schedule = test::computes(2, 1, {"0F0 1F0 1B0 0B0"});
  const auto spans = spans_of(lower(schedule, {true, false}), costs);
  EXPECT_EQ(spans.at("1REDUCE_GRAD"), span(7, 11));
  EXPECT_EQ(spans.at("0B0"), span(7, 12));
  EXPECT_EQ(spans.at("0REDUCE_GRAD"), span(12, 22));
  EXPECT_EQ(spans.at("0STEP"), span(22, 22));
  EXPECT_EQ(spans.at("1STEP"), span(22, 23));
  EXPECT_EQ(makespan(schedule, costs, {true, false}), 23);
}

TEST(Timeline, StartsATiedSumWhenBothEndsAreThereAndTheReplicasAfterIt) {
  StepCosts costs = equal_costs(3, stage_cost(1, 1, 1));
  costs.reduce_tied = Seconds(5);
  costs.reduce_grad = {Seconds(2), Seconds(20), Seconds(3)};
  const auto spans = spans_of(lower(make_schedule("gpipe", {3, 1, 1}), {true, true}), costs);
  EXPECT_EQ(spans.at("2B0"), span(3, 5));
  EXPECT_EQ(spans.at("0B0"), span(7, 9));
  EXPECT_EQ(spans.at("0REDUCE_TIED"), span(9, 14));
  EXPECT_EQ(spans.at("2REDUCE_TIED"), span(9, 14));
  EXPECT_EQ(spans.at("2REDUCE_GRAD"), span(14, 17));
  EXPECT_EQ(spans.at("1REDUCE_GRAD"), span(7, 27));
  EXPECT_EQ(spans.at("2STEP"), span(17, 17));
  EXPECT_EQ(spans.at("1STEP"), span(27, 27));
}

TEST(Timeline, MakesWeightGradientsWhileTheInputGradientTravels) {
  const ComputeSchedule split = test::computes(2, 1, {"0F0 0I0 0W0", "1F0 1I0 1W0"});
  const StepCosts costs = equal_costs(2, stage_cost(1, 2, 4), 3);
  const auto spans = spans_of(lower(split, {}), costs);
  EXPECT_EQ(spans.at("1W0"), span(7, 11));
  EXPECT_EQ(spans.at("0I0"), span(10, 12));
  EXPECT_EQ(makespan(split, costs), 16);
  EXPECT_EQ(makespan("gpipe", 2, 1, costs), 20);
}

TEST(Timeline, IsBuiltOnceAndEvaluatedWithManyCosts) {
  Timeline timeline(lower(make_schedule("1f1b", {4, 1, 8}), {}));
  EXPECT_EQ(timeline.makespan(equal_costs(4, stage_cost(1, 1, 1))), Seconds(33));
  EXPECT_EQ(timeline.makespan(equal_costs(4, stage_cost(2, 2, 2))), Seconds(66));
  EXPECT_EQ(timeline.makespan(equal_costs(4, stage_cost(1, 1, 1))), Seconds(33));
  // F B for each stage and micro-batch, a send and a receive each at three boundaries, a step a stage.
  EXPECT_EQ(timeline.actions(), 2U * 4 * 8 + 2U * 2 * 3 * 8 + 4);
}

}  // namespace
}  // namespace stagecraft
