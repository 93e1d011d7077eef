#include "models/cluster/cluster.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecraft {
namespace {

Link link(double latency, double bandwidth) { return {Seconds(latency), BytesPerSecond(bandwidth)}; }

// Two nodes of two devices on leaf 0 and 1, and a third on leaf 1 with a slower NIC.
Cluster two_leaves() {
  Cluster cluster;
  cluster.name = "c";
  cluster.device_types.resize(1);
  cluster.device_types[0].name = "d";
  for (int n = 0; n < 3; ++n) {
    Node node;
    node.name = fmt::format("n-{}", n);
    node.local_kind = "nvlink";
    node.local = link(1, 100);
    node.network = n == 2 ? link(5, 4) : link(2, 10);
    node.leaf = n == 0 ? 0 : 1;
    for (int d = 0; d < 2; ++d) {
      node.devices.push_back({static_cast<std::int32_t>(cluster.devices.size())});
      cluster.devices.push_back({0, n});
    }
    cluster.nodes.push_back(node);
  }
  cluster.leaves = 2;
  return cluster;
}

Error error_of(const std::string& name) {
  try {
    load_cluster(name);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::internal, "no error"};
}

TEST(Cluster, SlicesShareAGpuInOrderUntilItIsFull) {
  Cluster cluster = two_leaves();
  EXPECT_EQ(gpus_of(cluster), (std::vector<int>{0, 1, 2, 3, 4, 5}));
  cluster.device_types[0].multiprocessors = 32;
  cluster.device_types[0].gpu_multiprocessors = 132;
  EXPECT_EQ(gpus_of(cluster), (std::vector<int>{0, 0, 1, 1, 2, 2})) << "a GPU is in one node";
  cluster.device_types.push_back(cluster.device_types[0]);
  cluster.device_types[1].multiprocessors = 0;
  cluster.devices[0].type = 1;
  EXPECT_EQ(gpus_of(cluster), (std::vector<int>{0, 1, 2, 2, 3, 3}));
  cluster.device_types[0].multiprocessors = 100;
  EXPECT_EQ(gpus_of(cluster), (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(Cluster, ADeviceReachesItselfInNoTime) {
  const Link self = two_leaves().path({1}, {1});
  EXPECT_EQ(self.transfer_time(Bytes(1e12)), Seconds(0));
}

TEST(Cluster, DevicesOfANodeUseItsLocalLink) { EXPECT_EQ(two_leaves().path({0}, {1}), link(1, 100)); }

TEST(Cluster, DevicesOfDifferentNodesPassBothNicsAndTheSlowerLimits) {
  EXPECT_EQ(two_leaves().path({2}, {4}), link(7, 4));
  EXPECT_EQ(two_leaves().path({4}, {2}), link(7, 4));
}

TEST(Cluster, DifferentLeavesAddBothUplinks) {
  Cluster cluster = two_leaves();
  EXPECT_EQ(cluster.path({0}, {2}), link(4, 10)) << "without uplinks the fabric never limits";
  cluster.uplink = link(3, 8);
  EXPECT_EQ(cluster.path({0}, {2}), link(10, 8));
  EXPECT_EQ(cluster.path({2}, {4}), link(7, 4)) << "same leaf";
}

TEST(Cluster, DevicesShareTheNicsEvenlyInOrder) {
  Cluster cluster;
  cluster.nodes.resize(1);
  cluster.nodes[0].nics = 3;
  std::vector<int> nics;
  for (int d = 0; d < 8; ++d) {
    cluster.nodes[0].devices.push_back({d});
    cluster.devices.push_back({0, 0});
  }
  for (int d = 0; d < 8; ++d) nics.push_back(cluster.nic_of({d}));
  EXPECT_THAT(nics, testing::ElementsAre(0, 0, 0, 1, 1, 1, 2, 2));
}

TEST(Cluster, RepeatCopiesNodesWithLeavesOfTheirOwn) {
  Cluster cluster = two_leaves();
  cluster.uplink = link(3, 8);
  const Cluster twice = repeat(cluster, 2);
  ASSERT_EQ(twice.devices.size(), 12u);
  EXPECT_EQ(twice.name, "c:2");
  EXPECT_EQ(twice.leaves, 4);
  EXPECT_EQ(twice.nodes[3].name, "n-0-1");
  EXPECT_EQ(twice.nodes[3].leaf, 2);
  EXPECT_EQ(twice.node_of({6}).name, "n-0-1");
  EXPECT_EQ(twice.path({0}, {6}), link(10, 8));
  EXPECT_EQ(twice.path({6}, {7}), link(1, 100));
}

TEST(Cluster, RepeatWithoutUplinksKeepsTheLeaves) {
  const Cluster twice = repeat(two_leaves(), 2);
  EXPECT_EQ(twice.leaves, 2);
  EXPECT_EQ(twice.path({0}, {6}), link(4, 10));
}

TEST(Cluster, RepeatRefusesNodesWithoutANetworkAndTooManyDevices) {
  EXPECT_THROW(repeat(local_cpu(), 2), Error);
  EXPECT_THROW(repeat(two_leaves(), 200'000), Error);
  EXPECT_NO_THROW(repeat(local_cpu(), 1));
}

TEST(LoadCluster, ACountAfterAColonRepeatsAPreset) {
  const Cluster cluster = load_cluster("dgx-h100:64");
  EXPECT_EQ(cluster.devices.size(), 512u);
  EXPECT_EQ(cluster.nodes.size(), 64u);
  EXPECT_EQ(cluster.name, "dgx-h100:64");
  EXPECT_EQ(load_cluster("dgx-h100:1"), load_cluster("dgx-h100"));
}

TEST(LoadCluster, RefusesCountsWithoutSense) {
  for (const char* name : {"dgx-h100:", "dgx-h100:0", "dgx-h100:-1", "dgx-h100:+1", "dgx-h100: 2", "dgx-h100:2x",
                           "dgx-h100:100001", "dgx-h100:99999999999999999999", "dgx-h100:2:2"}) {
    const Error error = error_of(name);
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << name;
    EXPECT_THAT(error.what(), testing::HasSubstr("expected a number of copies")) << name;
  }
  EXPECT_THAT(error_of("gb200-nvl72:20000").what(), testing::HasSubstr("at most 1,000,000 devices"));
  EXPECT_THAT(error_of("local-cpu:2").what(), testing::HasSubstr("no network"));
}

TEST(LoadCluster, AnUnknownNameIsAnsweredWithTheNearest) {
  const Error error = error_of("dgx-h10");
  EXPECT_EQ(error.kind(), ErrorKind::bad_input);
  EXPECT_THAT(error.what(), testing::HasSubstr("did you mean"));
  EXPECT_THAT(error.what(), testing::HasSubstr("local-cpu"));
  EXPECT_THAT(error_of("dgx-h10:2").what(), testing::HasSubstr("no such cluster preset"));
}

TEST(LocalCpu, DescribesAtLeastOneCoreThatCanTrain) {
  const Cluster cluster = local_cpu();
  ASSERT_GE(cluster.devices.size(), 1u);
  ASSERT_EQ(cluster.nodes.size(), 1u);
  const DeviceType& core = cluster.type_of({0});
  EXPECT_EQ(core.kind, DeviceKind::cpu);
  EXPECT_FALSE(core.name.empty());
  EXPECT_GT(core.memory, Bytes(1 << 20));
  EXPECT_GT(core.peak_of(DataType::fp32), FlopsPerSecond(1e9));
  EXPECT_LT(core.peak_of(DataType::fp32), FlopsPerSecond(1e13));
  EXPECT_EQ(local_cpu(), cluster) << "the same machine is described alike each time";
}

}  // namespace
}  // namespace stagecraft
