#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/cluster/cluster.hpp"

namespace stagecraft {
namespace {

struct Expectation {
  const char* name;
  std::size_t devices;
  std::size_t nodes;
  DataType precision;
  double peak_tflops;
  double memory_gb;
};

class ClusterPreset : public testing::TestWithParam<Expectation> {};

TEST_P(ClusterPreset, HasTheFiguresOfItsDataSheet) {
  const Expectation& expected = GetParam();
  const Cluster cluster = load_cluster(expected.name);
  EXPECT_EQ(cluster.name, expected.name);
  EXPECT_EQ(cluster.devices.size(), expected.devices);
  EXPECT_EQ(cluster.nodes.size(), expected.nodes);
  EXPECT_EQ(cluster.type_of({0}).peak_of(expected.precision), FlopsPerSecond(expected.peak_tflops * 1e12));
  EXPECT_EQ(cluster.type_of({0}).memory, Bytes(expected.memory_gb * 1e9));
}

INSTANTIATE_TEST_SUITE_P(All, ClusterPreset,
                         testing::Values(Expectation{"dgx1-v100", 8, 1, DataType::fp16, 125, 16},
                                         Expectation{"dgx1-v100-32gb", 8, 1, DataType::fp16, 125, 32},
                                         Expectation{"dgx-a100-40gb", 8, 1, DataType::bf16, 312, 40},
                                         Expectation{"dgx-a100", 8, 1, DataType::bf16, 312, 80},
                                         Expectation{"dgx-h100", 8, 1, DataType::bf16, 989, 80},
                                         Expectation{"hgx-h200", 8, 1, DataType::bf16, 989, 141},
                                         Expectation{"gb200-nvl72", 72, 1, DataType::bf16, 2500, 186},
                                         Expectation{"mixed-a100-v100", 16, 2, DataType::fp16, 312, 80},
                                         Expectation{"edge-server", 3, 2, DataType::fp16, 42.5, 48},
                                         Expectation{"dgx-a100-x64", 512, 64, DataType::bf16, 312, 80},
                                         Expectation{"dgx-h100-x64", 512, 64, DataType::bf16, 989, 80}),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(ClusterPresets, AllLoadStateTheirSourceAndReadBackEqual) {
  const std::vector<std::string> names = cluster_presets();
  EXPECT_THAT(names, testing::Contains("local-cpu"));
  EXPECT_EQ(names.size(), 12u);
  for (const std::string& name : names) {
    const Cluster cluster = load_cluster(name);
    EXPECT_EQ(cluster.name, name);
    const Json json = to_json(cluster);
    EXPECT_EQ(cluster_from_json(JsonValue(json, name)), cluster) << name;
  }
}

TEST(ClusterPresets, LeavesHoldSixteenNodesWithoutOversubscription) {
  const Cluster cluster = load_cluster("dgx-a100-x64");
  EXPECT_EQ(cluster.leaves, 4);
  ASSERT_TRUE(cluster.uplink);
  EXPECT_EQ(cluster.uplink->bandwidth, cluster.nodes[0].network.bandwidth * (16 * 8));
}

TEST(ClusterPresets, TheMixedClusterHasTwoKindsOfDevices) {
  const Cluster cluster = load_cluster("mixed-a100-v100");
  EXPECT_EQ(cluster.type_of({0}).name, "A100-SXM4-80GB");
  EXPECT_EQ(cluster.type_of({8}).name, "V100-SXM2-32GB");
  EXPECT_EQ(cluster.nic_of({9}), 0);
  EXPECT_EQ(cluster.nic_of({15}), 3);
}

}  // namespace
}  // namespace stagecraft
