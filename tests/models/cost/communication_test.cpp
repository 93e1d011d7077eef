#include "models/cost/communication.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

Link link(double latency, double bandwidth) { return {Seconds(latency), BytesPerSecond(bandwidth)}; }

// Latency 1 s, 2 B/s: every figure below can be checked by hand.
const Link slow = link(1, 2);

TEST(Communication, PointToPointIsLatencyPlusBytesOverBandwidth) {
  EXPECT_EQ(point_to_point_time(slow, Bytes(8)), Seconds(5));
  EXPECT_EQ(point_to_point_time(slow, Bytes(0)), Seconds(1));
}

TEST(Communication, TheTextbookFormulaMultipliesWorkersAndBytes) {
  EXPECT_EQ(naive_all_reduce_time(4, Bytes(8), BytesPerSecond(2)), Seconds(16));
}

TEST(Communication, ARingTakesASharePerStep) {
  // 4 participants, shares of 2 B: 3 steps of 1 + 1 s.
  EXPECT_EQ(ring_reduce_scatter_time(slow, 4, Bytes(8)), Seconds(6));
  EXPECT_EQ(ring_all_gather_time(slow, 4, Bytes(8)), Seconds(6));
  EXPECT_EQ(ring_all_reduce_time(slow, 4, Bytes(8)), Seconds(12));
}

TEST(Communication, ATreeTakesWholeMessagesPerLevel) {
  EXPECT_EQ(tree_all_reduce_time(slow, 8, Bytes(8)), Seconds(2 * 3 * 5));
  EXPECT_EQ(tree_all_reduce_time(slow, 5, Bytes(8)), Seconds(2 * 3 * 5));
  EXPECT_EQ(tree_all_reduce_time(slow, 4, Bytes(8)), Seconds(2 * 2 * 5));
}

TEST(Communication, ADoubleTreeSendsTheBytesTwiceWhateverItsDepth) {
  EXPECT_EQ(double_tree_all_reduce_time(slow, 8, Bytes(8)), Seconds(2 * 3 + 8));
}

TEST(Communication, HalvingAndDoublingHasLogarithmicLatencyAndTheRingsBandwidth) {
  EXPECT_EQ(halving_doubling_all_reduce_time(slow, 4, Bytes(8)), Seconds(2 * 2 + 6));
  EXPECT_EQ(halving_doubling_all_reduce_time(slow, 5, Bytes(8)), Seconds(2 * 2 + 6 + 2 * 5))
      << "the fifth folds into another before and after";
}

TEST(Communication, AHierarchyReducesInsideBetweenAndGathersInside) {
  // 2 nodes of 4: inside 3 steps of 2 B at 4 B/s and 0 s latency; between 2 steps of 1 B at 2 B/s and 1 s.
  EXPECT_EQ(hierarchical_all_reduce_time(link(0, 4), 4, slow, 2, Bytes(8)), Seconds(1.5 + 2 * 1.5 + 1.5));
}

TEST(Communication, AllToAllSendsToEachOfTheOthers) { EXPECT_EQ(all_to_all_time(slow, 4, Bytes(8)), Seconds(6)); }

TEST(Communication, AParameterServerIsLimitedByTheBusierPort) {
  EXPECT_EQ(parameter_server_time(slow, 4, 1, Bytes(8)), Seconds(2 * (1 + 16)));
  EXPECT_EQ(parameter_server_time(slow, 4, 2, Bytes(8)), Seconds(2 * (1 + 8)));
  EXPECT_EQ(parameter_server_time(slow, 4, 8, Bytes(8)), Seconds(2 * (1 + 4)));
}

TEST(Communication, GossipSendsToItsNeighboursThroughOnePort) {
  EXPECT_EQ(gossip_time(slow, 3, Bytes(8)), Seconds(1 + 12));
  EXPECT_EQ(gossip_time(slow, 0, Bytes(8)), Seconds(0));
}

TEST(Communication, AloneEveryCollectiveTakesNoTime) {
  EXPECT_EQ(ring_all_reduce_time(slow, 1, Bytes(8)), Seconds(0));
  EXPECT_EQ(tree_all_reduce_time(slow, 1, Bytes(8)), Seconds(0));
  EXPECT_EQ(double_tree_all_reduce_time(slow, 1, Bytes(8)), Seconds(0));
  EXPECT_EQ(halving_doubling_all_reduce_time(slow, 1, Bytes(8)), Seconds(0));
  EXPECT_EQ(hierarchical_all_reduce_time(slow, 1, slow, 1, Bytes(8)), Seconds(0));
  EXPECT_EQ(all_to_all_time(slow, 1, Bytes(8)), Seconds(0));
}

// Nodes of `per_node` devices on a fast local link, with `nics` NICs of 2 B/s and 1/2 s of latency each.
Cluster cluster_of(int nodes, int per_node, int nics) {
  Cluster cluster;
  cluster.device_types.resize(1);
  for (int n = 0; n < nodes; ++n) {
    Node node;
    node.local = link(0, 8);
    node.network = link(0.5, 2);
    node.nics = nics;
    for (int d = 0; d < per_node; ++d) {
      node.devices.push_back({static_cast<std::int32_t>(cluster.devices.size())});
      cluster.devices.push_back({0, n});
    }
    cluster.nodes.push_back(node);
  }
  return cluster;
}

TEST(AllReduceTime, InsideANodeIsARingOnTheLocalLink) {
  const Cluster cluster = cluster_of(1, 4, 1);
  EXPECT_EQ(all_reduce_time(cluster, std::vector<DeviceId>{{0}, {1}, {2}, {3}}, Bytes(32)), Seconds(6));
  EXPECT_EQ(all_reduce_time(cluster, std::vector<DeviceId>{{2}}, Bytes(32)), Seconds(0));
}

TEST(AllReduceTime, OneDeviceANodeIsARingOnTheNetwork) {
  const Cluster cluster = cluster_of(4, 2, 1);
  EXPECT_EQ(all_reduce_time(cluster, std::vector<DeviceId>{{7}, {1}, {3}, {5}}, Bytes(8)),
            ring_all_reduce_time(link(1, 2), 4, Bytes(8)));
}

TEST(AllReduceTime, FullNodesAreHierarchicalWithTheirShareOfTheNics) {
  const std::vector<DeviceId> all{{0}, {1}, {2}, {3}};
  EXPECT_EQ(all_reduce_time(cluster_of(2, 2, 2), all, Bytes(64)),
            hierarchical_all_reduce_time(link(0, 8), 2, link(1, 2), 2, Bytes(64)));
  // One NIC for two devices halves what each has between nodes; still no worse than the flat ring's 6 steps of 1 + 8 s.
  EXPECT_EQ(all_reduce_time(cluster_of(2, 2, 1), all, Bytes(64)),
            hierarchical_all_reduce_time(link(0, 8), 2, link(1, 1), 2, Bytes(64)));
}

TEST(AllReduceTime, LeavesThatShareAnUplinkShareItsBandwidth) {
  Cluster cluster = cluster_of(2, 2, 2);
  cluster.nodes[1].leaf = 1;
  cluster.leaves = 2;
  cluster.uplink = link(0.25, 3);
  EXPECT_EQ(all_reduce_time(cluster, std::vector<DeviceId>{{0}, {1}, {2}, {3}}, Bytes(64)),
            hierarchical_all_reduce_time(link(0, 8), 2, link(1.5, 1.5), 2, Bytes(64)));
}

TEST(AllReduceTime, UnequalNodesAreARingAtItsSlowestHop) {
  const Cluster cluster = cluster_of(2, 2, 2);
  EXPECT_EQ(all_reduce_time(cluster, std::vector<DeviceId>{{2}, {0}, {1}}, Bytes(6)),
            ring_all_reduce_time(link(1, 2), 3, Bytes(6)));
}

TEST(AllReduceTime, EightA100ReachTheMeasuredBusBandwidth) {
  // nccl-tests all_reduce of 1,006,632,960 B on 8 GPUs of one node: 7,692.7 us (VIA-Research/vTrain trace/a100).
  const Cluster cluster = load_cluster("dgx-a100");
  std::vector<DeviceId> all;
  for (int d = 0; d < 8; ++d) all.push_back({d});
  EXPECT_NEAR(all_reduce_time(cluster, all, Bytes(1006632960)) / Seconds(7692.7e-6), 1.0, 0.02);
}

}  // namespace
}  // namespace stagecraft
