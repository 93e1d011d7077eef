// Every schedule on both simulators, and on the clock that the schedules are designed with.
#include <gtest/gtest.h>

#include <random>

#include "models/network/layer_graph.hpp"
#include "models/schedule/clock.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/traces.hpp"

namespace stagecraft {
namespace {

// A layer a stage, times drawn, messages of latency alone: no contention.
Plan plan_of(const ComputeSchedule& schedule, int replicas, std::mt19937& random, double latency) {
  test::PlanShape shape;
  shape.ranks = static_cast<int>(schedule.ranks.size());
  shape.replicas = replicas;
  shape.microbatches = schedule.microbatches / schedule.slices;
  shape.schedule = "gpipe";
  shape.local = shape.network = {Seconds(latency), BytesPerSecond(1e9)};
  Plan plan = test::make_plan(shape);
  plan.schedule = schedule;
  plan.batch.sequence = schedule.slices;
  plan.network.graph = LayerGraph{};
  plan.order.clear();
  plan.stages.clear();
  const Placement placement(schedule);
  std::uniform_real_distribution<double> time(1, 4);
  for (std::int32_t s = 0; s < schedule.stages; ++s) {
    Layer layer;
    layer.name = "layer" + std::to_string(s);
    plan.order.push_back(boost::add_vertex(layer, *plan.network.graph));
    if (s > 0) boost::add_edge(plan.order.end()[-2], plan.order.back(), Tensor{}, *plan.network.graph);
    PlanStage& stage = plan.stages.emplace_back();
    stage.layers = {s, s + 1};
    stage.rank = placement.ranks(StageId{s}).front();
    if (placement.is_shared(StageId{s})) stage.second_rank = placement.ranks(StageId{s}).back();
    stage.cost = test::stage_cost(time(random), time(random), time(random));
  }
  return plan;
}

std::vector<ComputeSchedule> examples_of(const ScheduleKind& kind) {
  std::vector<ComputeSchedule> examples;
  for (const int ranks : {1, 2, 3, 4, 6}) {
    for (const int stages_per_rank : {1, 2, 4}) {
      for (const int microbatches : {1, 4, 12}) {
        for (const int slices : {1, 3}) {
          ScheduleShape shape{ranks, stages_per_rank, microbatches};
          shape.slices = slices;
          if (kind.refuse(shape).empty()) examples.push_back(kind.generate(shape));
        }
      }
    }
  }
  return examples;
}

TEST(EverySchedule, RunsOnTheTimelineAsOnTheClock) {
  std::mt19937 random(1);
  for (const ScheduleKind& kind : schedule_kinds()) {
    for (const ComputeSchedule& schedule : examples_of(kind)) {
      const Plan plan = plan_of(schedule, 1, random, 0.5);
      validate(plan, "plan");
      std::vector<StageTimes> times;
      for (const PlanStage& stage : plan.stages) {
        times.push_back(
            {stage.cost.forward.value(), stage.cost.backward_input.value(), stage.cost.backward_weight.value()});
      }
      StepCosts costs = step_costs(plan);
      for (Seconds& sum : costs.reduce_grad) sum = Seconds(0);
      const double message =
          schedule.ranks.size() == 1 ? 0 : plan.cluster.path(DeviceId{0}, DeviceId{1}).latency.value();
      const double expected = clock_schedule(schedule, times, message).makespan;
      const double makespan = Timeline(plan.lowered()).makespan(costs).value();
      EXPECT_NEAR(makespan, expected, 1e-9 * expected)
          << kind.name << ", " << schedule.ranks.size() << " ranks, " << schedule.microbatches;
    }
  }
}

TEST(EverySchedule, RunsOnSimGridAsOnTheTimeline) {
  std::mt19937 random(2);
  for (const ScheduleKind& kind : schedule_kinds()) {
    int tried = 0;
    for (const ComputeSchedule& schedule : examples_of(kind)) {
      if (++tried % 5 != 1) continue;  // a process each
      const int replicas = schedule.updates == WeightUpdates::synchronous ? 1 + tried % 2 : 1;
      const Plan plan = plan_of(schedule, replicas, random, 0.5);
      SCOPED_TRACE(
          fmt::format("{}, {} ranks, {} micro-batches", kind.name, schedule.ranks.size(), schedule.microbatches));
      test::expect_same_events(simulate_timeline(plan), simulate_simgrid(plan), 1e-9);
    }
    EXPECT_GT(tried, 0) << kind.name;
  }
}

// Both copies of a stage sum their gradients before either steps.
TEST(BidirectionalSchedule, ReducesTheGradientsOfAStageOnTwoRanks) {
  ComputeSchedule schedule{"custom", 2, 2, {}};
  const auto action = [](ActionKind kind, int stage, int microbatch) {
    return Action{kind, StageId{stage}, MicrobatchId{microbatch}};
  };
  const auto chain = [&](int m) {
    return std::vector<Action>{action(ActionKind::forward, 0, m), action(ActionKind::forward, 1, 1 - m),
                               action(ActionKind::backward, 1, 1 - m), action(ActionKind::backward, 0, m)};
  };
  schedule.ranks = {chain(0), chain(1)};
  std::mt19937 random(3);
  Plan plan = plan_of(schedule, 1, random, 0);
  for (PlanStage& stage : plan.stages) {
    stage.cost = test::stage_cost(1, 1, 1);
    stage.cost.gradients = Bytes(1e9);  // over a ring of two: as many bytes each way, a second
    stage.cost.optimizer = Seconds(2);
  }
  // 1F0 1F1 .. : F 0-1, F 1-2, B 2-4, B 4-6. Stage 1 reduces from 4 to 5, stage 0 from 6 to 7; then a step each.
  const Trace timeline = simulate_timeline(plan);
  EXPECT_DOUBLE_EQ(timeline.step_times.front().value(), 6 + 1 + 2 + 2);
  test::expect_same_events(timeline, simulate_simgrid(plan), 1e-9);
}

}  // namespace
}  // namespace stagecraft
