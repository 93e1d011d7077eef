#include "sim/folding.hpp"

#include <gtest/gtest.h>

#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

using test::Placement;
using test::PlanShape;

Folding folding_of(const PlanShape& shape) {
  const Plan plan = test::make_plan(shape);
  const Traffic traffic = traffic_of(plan);
  return fold(traffic, Ports(plan.cluster), plan.cluster);
}

PlanShape replicas_of_four(int per_node, int nics, Placement placement) {
  PlanShape shape;
  shape.ranks = 4;
  shape.replicas = 8;
  shape.devices_per_node = per_node;
  shape.nics = nics;
  shape.placement = placement;
  shape.costs = {test::stage_cost(1, 1, 1, 100)};
  shape.costs[0].gradients = Bytes(1000);
  return shape;
}

TEST(Folding, OneReplicaStandsForAllThatArePlacedAlike) {
  EXPECT_EQ(folding_of(replicas_of_four(1, 1, Placement::replica_major)).representatives, std::vector<int>{0});
  EXPECT_EQ(folding_of(replicas_of_four(4, 4, Placement::replica_major)).representatives, std::vector<int>{0});
  EXPECT_EQ(folding_of(replicas_of_four(8, 8, Placement::stage_major)).representatives, std::vector<int>{0});
}

TEST(Folding, APortThatReplicasShareKeepsOneSharePerReplica) {
  // All eight devices of a stage behind one NIC.
  const PlanShape shape = replicas_of_four(8, 1, Placement::stage_major);
  const Folding folding = folding_of(shape);
  ASSERT_EQ(folding.representatives, std::vector<int>{0});
  const Plan plan = test::make_plan(shape);
  const Ports ports(plan.cluster);
  const Route hop = ports.route(DeviceId{0}, DeviceId{8});
  ASSERT_EQ(hop.hops, 2);
  for (const PortId port : hop.all()) {
    const int port_class = folding.port_class[static_cast<std::size_t>(port.value)];
    EXPECT_EQ(folding.class_bandwidth[static_cast<std::size_t>(port_class)], shape.network.bandwidth / 8);
  }
}

TEST(Folding, ReplicasOnUnlikeNodesStandForThemselves) {
  Plan plan = test::make_plan(replicas_of_four(4, 4, Placement::replica_major));
  plan.cluster.nodes[3].network.bandwidth = BytesPerSecond(5);
  const Folding folding = fold(traffic_of(plan), Ports(plan.cluster), plan.cluster);
  EXPECT_GT(folding.representatives.size(), 1U);
  EXPECT_EQ(folding.representatives.size(), 3U);  // the slow node, the one that sends to it, all others
}

TEST(Folding, DifferentBandwidthInsideANodeSeparatesItsReplica) {
  Plan plan = test::make_plan(replicas_of_four(4, 4, Placement::replica_major));
  plan.cluster.nodes[3].local.latency = Seconds(9);
  const Folding folding = fold(traffic_of(plan), Ports(plan.cluster), plan.cluster);
  EXPECT_NE(folding.representative_of[3], folding.representative_of[0]);
}

// Slots on the same ends are one lane, but what each of them carries counts.
TEST(Folding, BytesOfAnySlotSeparateReplicas) {
  PlanShape shape = replicas_of_four(1, 1, Placement::replica_major);
  shape.replicas = 2;
  const Plan plan = test::make_plan(shape);
  Traffic traffic = traffic_of(plan);
  for (auto& flows : traffic.replicas) flows.insert(flows.end(), 3, flows.front());
  EXPECT_EQ(fold(traffic, Ports(plan.cluster), plan.cluster).representatives, std::vector<int>{0});
  traffic.replicas[1].back().bytes = Bytes(7);
  EXPECT_EQ(fold(traffic, Ports(plan.cluster), plan.cluster).representatives, (std::vector<int>{0, 1}));
}

}  // namespace
}  // namespace stagecraft
