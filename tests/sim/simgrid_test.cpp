#include "sim/simgrid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "models/error.hpp"
#include "sim/timeline.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/traces.hpp"

namespace stagecraft {
namespace {

using test::event;
using test::expect_same_events;
using test::make_plan;
using test::Placement;
using test::PlanShape;
using test::stage_cost;

constexpr SimGridOptions unfolded{.fold_replicas = false};

// Computation of at least a second; a message occupies its ports for at most that.
std::vector<StageCost> random_costs(std::mt19937& random, int stages, double bandwidth) {
  std::uniform_real_distribution<double> time(1, 4), part(0, 1);
  std::vector<StageCost> costs;
  for (int s = 0; s < stages; ++s) {
    StageCost cost = stage_cost(time(random), time(random), time(random));
    cost.boundary = Bytes(std::floor(part(random) * bandwidth));
    cost.gradients = Bytes(std::floor(10 * part(random) * bandwidth));
    cost.tied = Bytes(std::floor(5 * part(random) * bandwidth));
    cost.optimizer = Seconds(part(random));
    cost.stash = Bytes(100);
    costs.push_back(cost);
  }
  return costs;
}

TEST(SimGrid, EqualsTheTimelineWhereEveryNeighbourHasItsOwnPort) {
  // Two devices a node: each rank has one neighbour in the node and one behind its NIC.
  std::mt19937 random(3);
  for (int round = 0; round < 24; ++round) {
    PlanShape shape;
    shape.schedule = round % 2 == 0 ? "1f1b" : "gpipe";
    shape.ranks = 2 + static_cast<int>(random() % 6);
    shape.microbatches = 1 + static_cast<int>(random() % 12);
    shape.devices_per_node = shape.nics = 2;
    shape.local = {Seconds(0.25), BytesPerSecond(4e9)};
    shape.network = {Seconds(0.75), BytesPerSecond(1e9)};
    shape.costs = random_costs(random, shape.ranks, 1e9);
    const Plan plan = make_plan(shape);
    expect_same_events(simulate_timeline(plan), simulate_simgrid(plan), 1e-9);
  }
}

TEST(SimGrid, EqualsTheTimelineWithReplicasThatReduceOverAnotherPlane) {
  // A replica a node: pipeline messages on local links, all-reduces on a NIC of each device's own.
  std::mt19937 random(4);
  for (int round = 0; round < 16; ++round) {
    PlanShape shape;
    shape.schedule = "gpipe";
    shape.ranks = shape.devices_per_node = shape.nics = 1 + static_cast<int>(random() % 5);
    shape.replicas = 2 + static_cast<int>(random() % 4);
    shape.microbatches = 1 + static_cast<int>(random() % 6);
    shape.tied = round % 4 < 2;
    shape.local = {Seconds(0.125), BytesPerSecond(4e9)};
    shape.network = {Seconds(0.0625), BytesPerSecond(1e9)};
    shape.costs = random_costs(random, shape.ranks, 1e9);
    const Plan plan = make_plan(shape);
    const Trace timeline = simulate_timeline(plan);
    expect_same_events(timeline, simulate_simgrid(plan), 1e-9);
    expect_same_events(timeline, simulate_simgrid(plan, unfolded), 1e-9);
  }
}

// Two replicas whose stages share a node and its one NIC.
PlanShape shared_nic() {
  PlanShape shape;
  shape.replicas = shape.devices_per_node = 2;
  shape.microbatches = 1;
  shape.placement = Placement::stage_major;
  shape.local = {Seconds(0), BytesPerSecond(1e9)};
  shape.network = {Seconds(0.5), BytesPerSecond(100)};  // 1 s from port to port
  shape.costs = {stage_cost(1, 1, 1, 700)};
  return shape;
}

TEST(SimGrid, TwoFlowsThroughOnePortShareIt) {
  for (const SimGridOptions& options : {SimGridOptions{}, unfolded}) {
    const Trace trace = simulate_simgrid(make_plan(shared_nic()), options);
    for (int replica = 0; replica < 2; ++replica) {
      const TraceEvent send = event(trace, replica, "0SEND_F0");
      EXPECT_DOUBLE_EQ(send.start.value(), 1);
      EXPECT_DOUBLE_EQ(send.end.value(), 1 + 1 + 2 * 7);  // computed, latency, half the bandwidth
      EXPECT_EQ(send.bytes, Bytes(700));
    }
    EXPECT_DOUBLE_EQ(trace.step_times[0].value(), 3 + 3 + 2 * (1 + 2 * 7));
  }
}

TEST(SimGrid, SharesAPortFairlyWhateverTheLatencies) {
  PlanShape shape = shared_nic();
  Plan plan = make_plan(shape);
  // The first stages on nodes of their own, 1 s and 3 s away from the second stages' common NIC of 1 B/s.
  plan.cluster.nodes = {Node{"a", {DeviceId{0}}, "", shape.local, {Seconds(1), BytesPerSecond(1)}, 1, 0},
                        Node{"b", {DeviceId{1}}, "", shape.local, {Seconds(3), BytesPerSecond(1)}, 1, 0},
                        Node{"c", {DeviceId{2}, DeviceId{3}}, "", shape.local, {Seconds(0), BytesPerSecond(1)}, 1, 0}};
  plan.cluster.devices = {{0, 0}, {0, 1}, {0, 2}, {0, 2}};
  for (PlanStage& stage : plan.stages) stage.cost = stage_cost(0, 0, 0, 10);
  const Trace trace = simulate_simgrid(plan);
  // From 1 s on the first alone at 1 B/s, from 3 s on both at 1/2 B/s: 2 + (t - 3) / 2 = 10.
  EXPECT_NEAR(event(trace, 0, "0SEND_F0").end.value(), 19, 1e-9);
  // The port is busy from 1 s on with 20 bytes.
  EXPECT_NEAR(event(trace, 1, "0SEND_F0").end.value(), 21, 1e-9);
}

TEST(SimGrid, FlowsThroughALeafsUplinkShareIt) {
  PlanShape shape;
  shape.replicas = 4;
  shape.microbatches = 1;
  shape.placement = Placement::stage_major;
  shape.nodes_per_leaf = 4;  // all first stages below one leaf, all second stages below the other
  shape.network = {Seconds(0.25), BytesPerSecond(100)};
  shape.uplink = Link{Seconds(0.5), BytesPerSecond(200)};  // for four ports of 100
  shape.costs = {stage_cost(1, 1, 1, 300)};
  for (const SimGridOptions& options : {SimGridOptions{}, unfolded}) {
    const TraceEvent send = event(simulate_simgrid(make_plan(shape), options), 3, "0SEND_F0");
    EXPECT_DOUBLE_EQ((send.end - send.start).value(), 2 * 0.25 + 2 * 0.5 + 300 / 50.0);
  }
}

TEST(SimGrid, FoldedReplicasGiveWhatAllOfThemGive) {
  std::mt19937 random(5);
  for (const Placement placement : {Placement::replica_major, Placement::stage_major}) {
    for (const auto& [per_node, nics] : {std::pair(1, 1), std::pair(4, 4), std::pair(4, 2), std::pair(8, 1)}) {
      for (const bool leaves : {false, true}) {
        PlanShape shape;
        shape.ranks = 4;
        shape.replicas = 8;
        shape.microbatches = 6;
        shape.tied = leaves;
        shape.placement = placement;
        shape.devices_per_node = per_node;
        shape.nics = nics;
        shape.nodes_per_leaf = 2;
        if (leaves) shape.uplink = Link{Seconds(0.0625), BytesPerSecond(5e8)};
        shape.costs = random_costs(random, shape.ranks, 3e9);  // messages that meet
        const Plan plan = make_plan(shape);
        expect_same_events(simulate_simgrid(plan, unfolded), simulate_simgrid(plan), 1e-12);
      }
    }
  }
}

TEST(SimGrid, ReducesInTheTimeOfTheRingFormula) {
  PlanShape shape;
  shape.ranks = 1;
  shape.replicas = 8;
  shape.microbatches = 1;
  shape.network = {Seconds(0.5), BytesPerSecond(100)};
  shape.costs = {stage_cost(1, 1, 1)};
  shape.costs[0].gradients = Bytes(1600);
  const Trace trace = simulate_simgrid(make_plan(shape));
  const TraceEvent sum = event(trace, 5, "0REDUCE_GRAD");
  EXPECT_DOUBLE_EQ(sum.start.value(), 3);
  EXPECT_DOUBLE_EQ(sum.end.value(), 3 + 2 * 7 * (1 + 200 / 100.0));  // 2 (n-1) (latency + bytes / n / bandwidth)
  EXPECT_EQ(sum.bytes, Bytes(1600));
}

TEST(SimGrid, AStragglerSlowsThePipelineToItsPace) {
  PlanShape shape;
  shape.schedule = "gpipe";
  shape.ranks = 4;
  shape.microbatches = 10;
  shape.network = {Seconds(0), BytesPerSecond(1e9)};
  shape.costs = {stage_cost(1, 1, 1), stage_cost(1, 1, 1), stage_cost(5, 5, 5), stage_cost(1, 1, 1)};
  // sum f + (M-1) max f + sum b + (M-1) max b
  EXPECT_DOUBLE_EQ(simulate_simgrid(make_plan(shape)).step_times[0].value(), 8 + 9 * 5 + 16 + 9 * 10);
}

TEST(SimGrid, GivesTheSameBitsEachTime) {
  PlanShape shape = shared_nic();
  shape.microbatches = 7;
  shape.costs = {stage_cost(0.1, 0.7, 0.3, 33)};
  const Plan plan = make_plan(shape);
  const Trace first = simulate_simgrid(plan, unfolded);
  simulate_simgrid(make_plan(shared_nic()));
  const Trace second = simulate_simgrid(plan, unfolded);
  EXPECT_EQ(first.step_times, second.step_times);
  EXPECT_EQ(first.events, second.events);
}

TEST(SimGrid, DescribesItsTrace) {
  PlanShape shape = shared_nic();
  shape.microbatches = 3;
  const Plan plan = make_plan(shape);
  const Trace trace = simulate_simgrid(plan);
  EXPECT_EQ(trace.source, "simgrid");
  EXPECT_EQ(trace.schedule, "1f1b");
  EXPECT_EQ(trace.network, "synthetic");
  EXPECT_EQ(std::tuple(trace.stages, trace.microbatches, trace.ranks, trace.replicas), std::tuple(2, 3, 2, 2));
  EXPECT_EQ(trace.tokens_per_step, 6);
  EXPECT_EQ(trace.stage_ranks, (std::vector<RankId>{RankId{0}, RankId{1}}));
  EXPECT_TRUE(trace.date.empty() && trace.machine.empty());
}

TEST(SimGrid, RefusesAScheduleThatCannotFinish) {
  Plan plan = make_plan(shared_nic());
  std::swap(plan.schedule.ranks[0][0], plan.schedule.ranks[0][1]);
  try {
    simulate_simgrid(plan);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_THAT(error.what(), testing::HasSubstr("rank 0, position 0: 0B0"));
  }
}

TEST(SimGrid, GivesSeveralPlansTheStepsThatEachHasAlone) {
  std::mt19937 random(7);
  std::vector<Plan> plans;
  for (int microbatches = 1; microbatches <= 7; ++microbatches) {
    PlanShape shape = shared_nic();
    shape.microbatches = microbatches;
    shape.costs = random_costs(random, shape.ranks, 1e9);
    plans.push_back(make_plan(shape));
  }
  std::vector<const Plan*> together;
  for (const Plan& plan : plans) together.push_back(&plan);
  const std::vector<Seconds> steps = simgrid_steps(together);
  ASSERT_EQ(steps.size(), plans.size());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    EXPECT_EQ(steps[i], simulate_simgrid(plans[i]).step_times.front()) << i;
    EXPECT_EQ(steps[i], simgrid_step(plans[i])) << i;
  }
  EXPECT_TRUE(simgrid_steps({}).empty());
}

TEST(SimGrid, RefusesTheFirstOfSeveralPlansThatCannotFinish) {
  const Plan good = make_plan(shared_nic());
  Plan first = good, second = good;
  std::swap(first.schedule.ranks[0][0], first.schedule.ranks[0][1]);
  std::swap(second.schedule.ranks[1][0], second.schedule.ranks[1][1]);
  const std::vector<const Plan*> plans{&good, &first, &second};
  try {
    simgrid_steps(plans);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_THAT(error.what(), testing::HasSubstr("rank 0, position 0: 0B0"));
  }
}

}  // namespace
}  // namespace stagecraft
