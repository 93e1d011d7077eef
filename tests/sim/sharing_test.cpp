#include "sim/sharing.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "models/schedule/schedule.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/traces.hpp"

namespace stagecraft {
namespace {

using test::event;
using test::make_plan;
using test::PlanShape;

// Slices of GPUs of 100 multiprocessors in one node, in this order.
Cluster slices_of(const std::vector<int>& multiprocessors) {
  Cluster cluster;
  cluster.nodes.emplace_back().local = {Seconds(0), BytesPerSecond(1e9)};
  for (const int count : multiprocessors) {
    DeviceType& type = cluster.device_types.emplace_back();
    type.name = "slice";
    type.multiprocessors = count;
    type.gpu_multiprocessors = count == 0 ? 0 : 100;
    const auto id = static_cast<std::int32_t>(cluster.devices.size());
    cluster.nodes[0].devices.push_back({id});
    cluster.devices.push_back({id, 0});
  }
  return cluster;
}

ComputeTimes times(double forward, double input, double weight, double optimizer = 0) {
  return {Seconds(forward), Seconds(input), Seconds(weight), Seconds(0), Seconds(optimizer)};
}

// A slice whose actions take twice as long while all neighbours compute.
StageCost shared_cost(double forward, double input, double weight, double optimizer = 0) {
  StageCost cost = test::stage_cost(2 * forward, 2 * input, 2 * weight);
  cost.optimizer = Seconds(2 * optimizer);
  cost.beside = {times(forward, input, weight, optimizer), cost.times()};
  return cost;
}

// All ranks on one GPU.
Plan shared_plan(PlanShape shape) {
  shape.devices_per_node = shape.ranks * shape.replicas;
  shape.local = {Seconds(0), BytesPerSecond(1e30)};
  Plan plan = make_plan(shape);
  plan.cluster.device_types[0].multiprocessors = 100 / shape.devices_per_node;
  plan.cluster.device_types[0].gpu_multiprocessors = 100;
  return plan;
}

TEST(Neighbours, AreTheOtherSlicesOfTheSameGpuWithTheirShares) {
  const Neighbours found = neighbours_of(slices_of({50, 30, 20, 60, 40}), {{{0}, {1}, {2}, {3}}});
  ASSERT_EQ(found.size(), 4u);
  ASSERT_EQ(found[0].size(), 2u);
  EXPECT_EQ(found[0][0].worker, 1);
  EXPECT_DOUBLE_EQ(found[0][0].share, 0.6);
  EXPECT_EQ(found[0][1].worker, 2);
  EXPECT_DOUBLE_EQ(found[0][1].share, 0.4);
  EXPECT_TRUE(found[3].empty()) << "its neighbour is not used";
}

TEST(Neighbours, OfReplicasOnOneGpuAreTheOnesThatStandForThem) {
  const Neighbours found = neighbours_of(slices_of({25, 25, 25, 25}), {{{0}, {1}}, {{2}, {3}}});
  ASSERT_EQ(found.size(), 2u);
  ASSERT_EQ(found[0].size(), 3u);
  EXPECT_EQ(found[0][0].worker, 1);
  EXPECT_EQ(found[0][1].worker, 0) << "its own replica";
  EXPECT_EQ(found[0][2].worker, 1);
}

TEST(Neighbours, AreNoneWhereEveryDeviceIsItsOwn) {
  EXPECT_TRUE(neighbours_of(slices_of({0, 0}), {{{0}, {1}}}).empty());
  EXPECT_TRUE(neighbours_of(slices_of({60, 60}), {{{0}, {1}}}).empty()) << "two GPUs";
}

TEST(Interpolate, IsLinearBetweenEvenlySpacedPoints) {
  const std::array points{1.0, 2.0, 6.0};
  EXPECT_EQ(interpolate(points, 0), 1);
  EXPECT_EQ(interpolate(points, 0.25), 1.5);
  EXPECT_EQ(interpolate(points, 0.75), 4);
  EXPECT_EQ(interpolate(points, 1), 6);
  EXPECT_EQ(interpolate(points, 1.25), 8) << "and goes on";
  EXPECT_EQ(interpolate(std::array{3.0, 5.0, 2.0}, 1.5), 2) << "but not down";
  EXPECT_EQ(interpolate(std::array{3.0}, 0.5), 3);
}

TEST(SharedProgress, GoesOnAtTheRateOfTheMoment) {
  const Neighbours both{{{1, 1.0}}, {{0, 1.0}}};
  const SharedWork work{.points = {2, 4}};
  SharedProgress progress(both);
  EXPECT_FALSE(progress.next());
  progress.start(0, 0, work);
  EXPECT_EQ(progress.next()->time, 2);
  progress.start(1, 1, work);
  // Half is done at 1; the rest takes twice as long.
  EXPECT_EQ(progress.next()->worker, 0);
  EXPECT_EQ(progress.next()->time, 3);
  progress.finish(0, 3);
  EXPECT_EQ(progress.next()->worker, 1);
  EXPECT_EQ(progress.next()->time, 4);
  progress.finish(1, 4);
  EXPECT_FALSE(progress.next());
}

TEST(SharedProgress, NeighboursThatDoForwardsCountAsMeasured) {
  const Neighbours both{{{1, 1.0}}, {{0, 1.0}}};
  const SharedWork forward{.points = {2, 4}, .is_forward = true, .forward_weight = 0.5, .other_weight = 1.5};
  SharedWork other = forward;
  other.is_forward = false;
  for (const auto& [neighbour, seconds] : {std::pair(forward, 3.0), std::pair(other, 5.0)}) {
    SharedProgress progress(both);
    progress.start(1, 0, neighbour);
    progress.start(0, 0, forward);
    progress.finish(1, 0.75 * seconds);
    ASSERT_TRUE(progress.next());
    EXPECT_DOUBLE_EQ(progress.next()->time, 0.75 * seconds + 0.25 * 2);
  }
}

TEST(SharedWork, WeighsNeighboursSoThatThoseOfAStepCountForWhatTheyDid) {
  StageCost cost = shared_cost(1, 2, 3, 1);
  EXPECT_EQ(shared_work(cost, ActionKind::forward).forward_weight, 1);
  EXPECT_EQ(shared_work(cost, ActionKind::forward).other_weight, 1);
  cost.beside_forwards = times(1.5, 4, 7.5, 3);
  const SharedWork forward = shared_work(cost, ActionKind::forward);
  EXPECT_EQ(forward.points, (std::vector<double>{1, 2}));
  EXPECT_TRUE(forward.is_forward);
  EXPECT_DOUBLE_EQ(forward.forward_weight, 0.5);
  // Of a step's 12 s forwards are 2.
  EXPECT_DOUBLE_EQ((2 * forward.forward_weight + 10 * forward.other_weight) / 12, 1);
  const SharedWork input = shared_work(cost, ActionKind::backward_input);
  EXPECT_FALSE(input.is_forward);
  EXPECT_EQ(input.forward_weight, 1) << "as beside all else";
  EXPECT_EQ(input.other_weight, 1);
  const SharedWork weight = shared_work(cost, ActionKind::backward_weight);
  EXPECT_DOUBLE_EQ(weight.forward_weight, 1.5);
  EXPECT_DOUBLE_EQ(weight.other_weight, 0.9);
  EXPECT_EQ(shared_work(cost, ActionKind::optimizer_step).forward_weight, 1) << "begins when all do";
  StageCost nothing;
  nothing.beside = {times(0, 0, 0), times(0, 0, 0)};
  nothing.beside_forwards = times(1, 1, 1);
  EXPECT_EQ(shared_work(nothing, ActionKind::forward).forward_weight, 1);
  StageCost no_backward = shared_cost(1, 0, 0);
  no_backward.beside_forwards = times(2.5, 0, 0);
  EXPECT_EQ(shared_work(no_backward, ActionKind::forward).other_weight, 1);
  cost.beside_forwards = times(100, 4, 7.5);
  EXPECT_EQ(shared_work(cost, ActionKind::forward).forward_weight, 2) << "noise is bounded";
}

TEST(SharedTimeline, TakesTheTimesAloneWhereOneRankWorksAtATime) {
  PlanShape shape{.schedule = "gpipe", .ranks = 3, .microbatches = 1, .costs = {shared_cost(1, 2, 3)}};
  EXPECT_EQ(simulate_timeline(shared_plan(shape)).step_times.front(), Seconds(3 * (1 + 2 + 3)));
}

TEST(SharedTimeline, TakesTheTimesBesideOthersWhereAllWork) {
  // Stage 0 is alone for its first forward (1) and its last backward (5); between, both work at half speed.
  PlanShape shape{.schedule = "gpipe", .ranks = 2, .microbatches = 2, .costs = {shared_cost(1, 2, 3)}};
  const Trace trace = simulate_timeline(shared_plan(shape));
  EXPECT_EQ(event(trace, 0, "0F0").end, Seconds(1));
  EXPECT_EQ(event(trace, 0, "0F1").end, Seconds(3));
  EXPECT_EQ(event(trace, 0, "1F0").end, Seconds(3));
  EXPECT_EQ(event(trace, 0, "1F1").end, Seconds(4));
  EXPECT_EQ(event(trace, 0, "1B0").end, Seconds(9));
  EXPECT_EQ(event(trace, 0, "0B0").end, Seconds(19));
  EXPECT_EQ(event(trace, 0, "0B1").end, Seconds(24));
}

TEST(SharedTimeline, ForwardsBesideForwardsTakeAsLongAsMeasured) {
  PlanShape shape{.schedule = "gpipe", .ranks = 2, .microbatches = 2, .costs = {shared_cost(1, 2, 3)}};
  shape.costs.front().beside_forwards = times(1.5, 4, 6);
  const Trace trace = simulate_timeline(shared_plan(shape));
  EXPECT_EQ(event(trace, 0, "0F1").end, Seconds(2.5));
  EXPECT_EQ(event(trace, 0, "1F1").end, Seconds(3.5));
  EXPECT_EQ(event(trace, 0, "1B0").end, Seconds(8.5)) << "alone";
  EXPECT_EQ(event(trace, 0, "0B0").end, Seconds(18.5));
}

TEST(SharedTimeline, OptimizerStepsBeginTogetherAndDisturbEachOther) {
  PlanShape shape{.schedule = "gpipe", .ranks = 2, .microbatches = 1, .costs = {shared_cost(1, 1, 1, 1)}};
  const Trace trace = simulate_timeline(shared_plan(shape));
  EXPECT_EQ(event(trace, 0, "0STEP").start, Seconds(6));
  EXPECT_EQ(event(trace, 0, "1STEP").start, Seconds(6));
  EXPECT_EQ(trace.step_times.front(), Seconds(8));
}

TEST(SharedTimeline, EqualsTheLongestPathWhereNeighboursDoNotDisturb) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> draw(1, 4);
  for (const ScheduleKind& kind : schedule_kinds()) {
    ScheduleShape schedule{4, 2, 8};
    if (!kind.refuse(schedule).empty()) schedule.stages_per_rank = 1;
    if (!kind.refuse(schedule).empty()) continue;
    const LoweredSchedule lowered = lower(kind.generate(schedule), {});
    Timeline timeline(lowered);
    StepCosts costs;
    for (int s = 0; s < 4 * schedule.stages_per_rank; ++s) {
      StageCost& cost = costs.stages.emplace_back(test::stage_cost(draw(random), draw(random), draw(random)));
      cost.beside = {cost.times(), cost.times()};
      costs.hops.push_back({Seconds(0.5), BytesPerSecond(1)});
      costs.reduce_grad.emplace_back();
    }
    costs.hops.pop_back();
    std::vector<Timeline::Span> apart, shared;
    const Seconds step = timeline.evaluate(costs, apart);
    costs.neighbours = neighbours_of(slices_of({25, 25, 25, 25}), {{{0}, {1}, {2}, {3}}});
    EXPECT_EQ(timeline.evaluate(costs, shared), step) << kind.name;
    std::size_t at = 0;
    for (const auto& actions : lowered.ranks) {
      for (const Action& action : actions) {
        // Optimizer steps, here without duration, begin together.
        if (action.kind != ActionKind::optimizer_step) {
          EXPECT_EQ(apart[at], shared[at]) << kind.name << ' ' << to_string(action);
        }
        ++at;
      }
    }
  }
}

TEST(SharedTimeline, EqualsSimGrid) {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> draw(1, 4);
  for (const char* schedule : {"gpipe", "1f1b", "zb-h1"}) {
    for (const int replicas : {1, 2}) {
      PlanShape shape{.schedule = schedule, .ranks = 4, .replicas = replicas, .microbatches = 6};
      shape.costs.clear();
      for (int s = 0; s < shape.ranks; ++s) {
        shape.costs.push_back(shared_cost(draw(random), draw(random), draw(random), draw(random)));
        shape.costs.back().gradients = Bytes(1);
        shape.costs.back().beside_forwards = times(draw(random), draw(random), draw(random));
      }
      const Plan plan = shared_plan(shape);
      test::expect_same_events(simulate_timeline(plan), simulate_simgrid(plan), 1e-9);
    }
  }
}

}  // namespace
}  // namespace stagecraft
