#include <gtest/gtest.h>

#include "models/schedule/checker.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"
#include "sim/traffic.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/traces.hpp"

namespace stagecraft {
namespace {

using test::make_plan;
using test::PlanShape;
using test::stage_cost;

TEST(StepCosts, TakesTheSlowestReplicasPathBetweenStages) {
  PlanShape shape;
  shape.replicas = shape.devices_per_node = 2;
  shape.local = {Seconds(1), BytesPerSecond(10)};
  shape.network = {Seconds(2), BytesPerSecond(5)};
  shape.costs = {stage_cost(1, 1, 1, 10)};
  Plan plan = make_plan(shape);
  EXPECT_EQ(step_costs(plan).hops, (std::vector<Link>{shape.local}));
  std::swap(plan.devices[0][1], plan.devices[1][1]);  // now both replicas go from node to node
  EXPECT_EQ(step_costs(plan).hops, (std::vector<Link>{{Seconds(4), BytesPerSecond(5)}}));
}

TEST(StepCosts, SumsGradientsOverReplicasAndTheTiedTableOverTheEnds) {
  PlanShape shape;
  shape.replicas = 2;
  shape.tied = true;
  shape.network = {Seconds(0.5), BytesPerSecond(100)};
  shape.costs = {stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(400);
  shape.costs[0].tied = Bytes(200);
  const StepCosts costs = step_costs(make_plan(shape));
  EXPECT_EQ(costs.reduce_grad, std::vector<Seconds>(2, Seconds(2 * (1 + 2))));
  EXPECT_EQ(costs.reduce_tied, Seconds(2 * (1 + 1)));
  shape.replicas = 1;
  shape.tied = false;
  EXPECT_EQ(step_costs(make_plan(shape)).reduce_grad, std::vector<Seconds>(2, Seconds(0)));
  EXPECT_EQ(step_costs(make_plan(shape)).reduce_tied, Seconds(0));
}

TEST(TimelineTrace, HoldsTheEventsOfEveryReplica) {
  PlanShape shape;
  shape.ranks = 2;
  shape.replicas = 3;
  shape.microbatches = 2;
  shape.network = {Seconds(1), BytesPerSecond(1e9)};
  shape.costs = {stage_cost(3, 2, 2)};
  const Trace trace = simulate_timeline(make_plan(shape));
  EXPECT_EQ(trace.source, "timeline");
  EXPECT_EQ(trace.step_times.size(), 1U);
  const TraceEvent wait = test::event(trace, 2, "1RECV_F0");
  EXPECT_EQ(wait.start, Seconds(0));
  EXPECT_EQ(wait.end, Seconds(5));  // forward, two latencies
  for (std::size_t i = 1; i < trace.events.size(); ++i) {
    const TraceEvent &before = trace.events[i - 1], &after = trace.events[i];
    EXPECT_LE(std::tuple(before.replica, before.rank, before.start),
              std::tuple(after.replica, after.rank, after.start));
    EXPECT_TRUE(after.end > after.start || !after.action.stage.value || after.action.kind != ActionKind::recv_forward);
  }
}

TEST(TimelineTrace, FindsThePeakMemoryFromTheOrderOfTheActions) {
  PlanShape shape;
  shape.ranks = 3;
  shape.microbatches = 5;
  shape.costs = {stage_cost(1, 1, 1)};
  shape.costs[0].weights = Bytes(1000);
  shape.costs[0].gradients = Bytes(2000);
  shape.costs[0].optimizer_state = Bytes(4000);
  shape.costs[0].workspace = Bytes(500);
  shape.costs[0].stash = Bytes(10);
  EXPECT_EQ(simulate_timeline(make_plan(shape)).peak_memory,
            (std::vector<Bytes>{Bytes(7530), Bytes(7520), Bytes(7510)}));
  shape.schedule = "gpipe";
  EXPECT_EQ(simulate_timeline(make_plan(shape)).peak_memory, std::vector<Bytes>(3, Bytes(7550)));
}

TEST(TimelineTrace, CountsWhatIsKeptBetweenInputAndWeightGradient) {
  PlanShape shape;
  shape.schedule = "zb-h1";
  shape.ranks = 3;
  shape.microbatches = 5;
  shape.costs = {stage_cost(1, 1, 1)};
  shape.costs[0].stash = Bytes(10);
  shape.costs[0].split = Bytes(1);
  const Plan plan = make_plan(shape);
  const std::vector<int> stashes = peak_in_flight_by_stage(plan.schedule), splits = peak_split_by_stage(plan.schedule);
  ASSERT_GT(splits[0], 0);
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(simulate_timeline(plan).peak_memory[rank], Bytes(10.0 * stashes[rank] + splits[rank])) << rank;
  }
  EXPECT_EQ(peak_split_by_stage(make_schedule("1f1b", {3, 1, 5})), std::vector<int>(3, 0));
}

TEST(TimelineTrace, CountsTheLargestWorkspaceAndAllStashesOfARanksStages) {
  PlanShape shape;
  shape.ranks = 2;
  shape.costs = {stage_cost(1, 1, 1), stage_cost(1, 1, 1)};
  for (StageCost& cost : shape.costs) cost.weights = Bytes(100);
  shape.costs[0].stash = Bytes(1);
  shape.costs[1].stash = Bytes(10);
  shape.costs[0].workspace = Bytes(40);
  shape.costs[1].workspace = Bytes(30);
  Plan plan = make_plan(shape);
  // Both stages on one rank, the weight gradients late: two stashes of the second stage, one of the first.
  plan.stages[1].rank = RankId{0};
  plan.devices = {{DeviceId{0}}};
  plan.schedule = {"custom", 2, 2, {{}}};
  for (const char* text : {"0F0", "1F0", "1I0", "0B0", "0F1", "1F1", "1W0", "1B1", "0B1"}) {
    plan.schedule.ranks[0].push_back(parse_action(text).value());
  }
  EXPECT_EQ(simulate_timeline(plan).peak_memory, (std::vector<Bytes>{Bytes(200 + 40 + 21)}));
}

// Four rows of devices, one node each: two replicas of two shards.
TEST(StepCosts, ReduceAmongTheReplicasOfAShardOnly) {
  test::PlanShape shape;
  shape.replicas = 4;
  shape.costs = {test::stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(8e8);
  const Seconds four = step_costs(test::make_plan(shape)).reduce_grad.front();
  Plan plan = test::make_plan(shape);
  plan.layout.tensor = 2;
  EXPECT_EQ(plan.replicas(), 2);
  const auto groups = reduction_groups(plan, plan.stages.front());
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0], (std::vector{plan.devices[0][0], plan.devices[2][0]}));
  EXPECT_EQ(groups[1], (std::vector{plan.devices[1][0], plan.devices[3][0]}));
  // A ring of n sends 2 (n-1)/n of the bytes: 1.2 GB of four, 0.8 GB of two, at 1 GB/s.
  EXPECT_NEAR(four.value(), 1.2 + 6 * 0.002, 1e-9);
  EXPECT_NEAR(step_costs(plan).reduce_grad.front().value(), 0.8 + 2 * 0.002, 1e-9);
  plan.layout = {};
  plan.layout.context = 2;  // slices of the sequence sum their gradients as replicas do
  EXPECT_EQ(step_costs(plan).reduce_grad.front(), four);
}

TEST(StepCosts, PlanAReductionOnceForStagesOnTheSameRankWithAsManyBytes) {
  test::PlanShape shape;
  shape.ranks = 4;
  shape.replicas = 2;
  shape.costs = {test::stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(8e8);
  Plan plan = test::make_plan(shape);
  for (const int stage : {0, 1, 2}) plan.stages[static_cast<std::size_t>(stage)].rank = RankId{0};
  plan.stages[1].cost.gradients = Bytes(4e8);
  const Reductions reductions = reductions_of(plan);
  EXPECT_EQ(reductions.of_stage, (std::vector<std::size_t>{0, 1, 0, 2}));
  EXPECT_NEAR(reductions.of(2).front().time.value(), 0.8 + 2 * 0.002, 1e-9);
  EXPECT_NEAR(reductions.of(1).front().time.value(), 0.4 + 2 * 0.002, 1e-9);
  EXPECT_EQ(reductions.of(3).front().phases.front().hops.front().from, plan.devices[0][3]);
}

TEST(StepCosts, ReduceWhatTheBackwardDidNotHide) {
  test::PlanShape shape;
  shape.replicas = 2;
  shape.costs = {test::stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(8e8);
  shape.costs[0].reduced = Bytes(2e8);
  EXPECT_NEAR(step_costs(test::make_plan(shape)).reduce_grad.front().value(), 0.2 + 2 * 0.002, 1e-9);
}

TEST(SimGrid, PlaysShardsInStepAndTracesReplicas) {
  test::PlanShape shape;
  shape.replicas = 4;
  shape.costs = {test::stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(8e8);
  Plan plan = test::make_plan(shape);
  plan.layout.tensor = 2;
  for (const bool fold : {true, false}) {
    const Trace trace = simulate_simgrid(plan, {.fold_replicas = fold});
    EXPECT_NEAR(trace.step_times.front().value(), simulate_timeline(plan).step_times.front().value(), 1e-6);
    EXPECT_EQ(trace.replicas, 2);
    EXPECT_EQ(trace.events.back().replica, 1);
    EXPECT_EQ(simgrid_step(plan, {.fold_replicas = fold}), trace.step_times.front());
  }
}

}  // namespace
}  // namespace stagecraft
