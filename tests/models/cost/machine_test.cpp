#include "models/cost/machine.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/cost/constants.hpp"

namespace stagecraft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// 8 devices a node with 100 B/s inside, 10 B/s each between nodes; latencies of 1 and 2 s, starts of 5 and 7 s.
Machine machine() {
  Machine m;
  m.levels = {{8, 100, 1, 0, 5}, {64, 10, 2, 3, 7}};
  return m;
}

TEST(Machine, IsAsItsConstantsWereFittedInAllPresets) {
  for (const std::string& name : cluster_presets()) EXPECT_THAT(unlike_fitted(load_cluster(name)), IsEmpty()) << name;
}

TEST(Machine, SaysWhatItsConstantsWereNotFittedWith) {
  Cluster cluster = load_cluster("dgx-a100");
  for (Node& node : cluster.nodes) node.local = {Seconds(20e-6), BytesPerSecond(300e9)};
  cluster.device_types[0].efficiency.matmul = 0.9;
  EXPECT_THAT(unlike_fitted(cluster),
              ElementsAre("links of 300 GB/s inside a node: taken as given, though the constants of 'A100-SXM4-80GB' "
                          "were fitted with 230 GB/s (cluster 'dgx-a100')",
                          "a latency of 20.0 us inside a node: the step model does not read it, but takes the one "
                          "fitted for 'A100-SXM4-80GB' (in cluster 'dgx-a100' it is 6.00 us)",
                          "the efficiency of 'A100-SXM4-80GB': the step model does not read it, but takes the fitted "
                          "constants"));
  cluster.device_types[0].name = "unknown";
  EXPECT_THAT(unlike_fitted(cluster), IsEmpty());
  cluster.device_types[0].name = "Jetson-AGX-Orin-64GB";  // in a cluster's preset, but without constants of its own
  EXPECT_THAT(unlike_fitted(cluster), IsEmpty());
  // A file that says nothing of efficiencies.
  cluster = load_cluster("dgx-a100");
  cluster.device_types[0].efficiency = {};
  EXPECT_THAT(unlike_fitted(cluster), IsEmpty());
}

TEST(Group, CountsItsMembersOnANode) {
  const auto per_node = [](double stride, double members) { return group_of(machine(), stride, members).per_node; };
  EXPECT_EQ(per_node(1, 4), 4);
  EXPECT_EQ(per_node(1, 16), 8);
  EXPECT_EQ(per_node(2, 16), 4);
  EXPECT_EQ(per_node(8, 4), 1);
  EXPECT_EQ(per_node(16, 4), 1);
}

// Eight devices a node.
TEST(Group, KnowsWhatLiesBetweenItsMembers) {
  const auto is = [](const GroupShape& group, double members, double per_node, double reach) {
    return group.members == members && group.per_node == per_node && group.stride * group.members == reach;
  };
  EXPECT_TRUE(is(group_of(machine(), {2, 2}, {4, 8}), 16, 4, 32)) << "one after the other, as if they were one";
  EXPECT_TRUE(is(group_of(machine(), 2, 16), 16, 4, 32));
  EXPECT_TRUE(is(group_of(machine(), {1, 2}, {8, 4}), 8, 2, 32)) << "six of others between each two pairs";
  EXPECT_TRUE(is(group_of(machine(), {1, 16}, {32, 2}), 32, 8, 64));
  EXPECT_TRUE(is(group_of(machine(), {1, 1}, {8, 4}), 4, 1, 32)) << "the inner dimension is none";
  EXPECT_TRUE(is(group_of(machine(), {4, 2}, {8, 1}), 2, 2, 8)) << "the outer dimension is none";
}

TEST(Collectives, PipelineTheirMessagesInsideANode) {
  const double steps = 3 * 1, transfer = 3.0 / 4 * 400 / 100;
  EXPECT_DOUBLE_EQ(reduce_scatter_time(machine(), group_of(machine(), 1, 4), 400),
                   5 + std::pow(std::sqrt(steps) + std::sqrt(transfer), 2));
  EXPECT_DOUBLE_EQ(all_reduce_time(machine(), group_of(machine(), 1, 4), 400),
                   5 + std::pow(std::sqrt(2 * steps) + std::sqrt(2 * transfer), 2));
}

TEST(Collectives, LeaveANodeThroughThePortsOfItsMembers) {
  // 16 members, 8 a node: 80 B/s. 8 members, one a node: 10 B/s.
  EXPECT_DOUBLE_EQ(all_gather_time(machine(), group_of(machine(), 1, 16), 1600), 7 + 15 * 2 + 15.0 / 16 * 1600 / 80);
  EXPECT_DOUBLE_EQ(all_gather_time(machine(), group_of(machine(), 8, 8), 1600), 7 + 7 * 2 + 7.0 / 8 * 1600 / 10);
}

TEST(Collectives, ReduceByATreeWhereTheRingIsLong) {
  const GroupShape group = group_of(machine(), 8, 8);
  const double tree = 7 + std::pow(std::sqrt(2 * 3 * 3) + std::sqrt(2 * 7.0 / 8 * 1600 / 10), 2);
  const double ring = 7 + 2 * 7 * 2 + 2 * 7.0 / 8 * 1600 / 10;
  EXPECT_DOUBLE_EQ(all_reduce_time(machine(), group, 1600), std::min(ring, tree));
  const double small_tree = 7 + std::pow(std::sqrt(2 * 3 * 3) + std::sqrt(2 * 7.0 / 8 * 1 / 10), 2);
  EXPECT_DOUBLE_EQ(all_reduce_time(machine(), group, 1), small_tree);
}

TEST(Collectives, ReduceByASlowRingOverMoreNodesThanATreeSpans) {
  Machine m = machine();
  m.levels.back().tree_nodes = 4;
  m.levels.back().wide_latency = 20;
  const GroupShape four = group_of(m, 8, 4), eight = group_of(m, 8, 8);
  EXPECT_EQ(all_reduce_time(m, four, 1600), all_reduce_time(machine(), four, 1600));
  EXPECT_DOUBLE_EQ(all_reduce_time(m, eight, 1600), 7 + 2 * 7 * 20 + 2 * 7.0 / 8 * 1600 / 10);
  EXPECT_EQ(reduce_scatter_time(m, eight, 1600), reduce_scatter_time(machine(), eight, 1600));
}

TEST(Collectives, FindLessOfANarrowingNetworkTheMoreNodesTheySpan) {
  Machine m = machine();
  m.levels.back().narrowing = 0.5;
  const auto transfer = [](const Machine& of, double stride, double members) {
    return all_gather_time(of, group_of(of, stride, members), 1600) - 7 - (members - 1) * 2;
  };
  EXPECT_DOUBLE_EQ(transfer(m, 8, 4), transfer(machine(), 8, 4) * 2) << "4 nodes";
  EXPECT_DOUBLE_EQ(transfer(m, 1, 32), transfer(machine(), 1, 32) * 2) << "whatever of them takes part";
  EXPECT_DOUBLE_EQ(transfer(m, 8, 16), transfer(machine(), 8, 16) * 4) << "16 nodes";
  EXPECT_EQ(all_gather_time(m, group_of(m, 1, 8), 1600), all_gather_time(machine(), group_of(m, 1, 8), 1600));
}

// Four nodes below a switch, two such, and a tenth of the rate between them.
Machine with_leaves() {
  Machine m = machine();
  m.levels.insert(m.levels.begin() + 1, m.levels.back());
  m.levels[1].devices = 32;
  m.levels[2].bandwidth = 1;
  return m;
}

TEST(Collectives, LeaveASwitchThroughThePortOfAllDevicesBelowIt) {
  const Machine m = with_leaves();
  EXPECT_EQ(all_gather_time(m, group_of(m, 1, 32), 1600), all_gather_time(machine(), group_of(m, 1, 32), 1600));
  EXPECT_EQ(all_gather_time(m, group_of(m, 8, 4), 1600), all_gather_time(machine(), group_of(m, 8, 4), 1600));
  // Of 64 members 32 are below each switch, of 8 members 4.
  EXPECT_DOUBLE_EQ(all_gather_time(m, group_of(m, 1, 64), 1600), 7 + 63 * 2 + 63.0 / 64 * 1600 / 32);
  EXPECT_DOUBLE_EQ(all_gather_time(m, group_of(m, 8, 8), 1600), 7 + 7 * 2 + 7.0 / 8 * 1600 / 4);
  EXPECT_DOUBLE_EQ(all_to_all_time(m, group_of(m, 8, 8), 1600), 7 + std::max({0.0, 7.0 / 8 * 160, 4.0 / 8 * 1600}));
}

TEST(Collectives, OnOneLevelHaveNoOtherWhateverTheirSize) {
  Machine one = machine();
  one.levels.pop_back();
  const GroupShape larger{16, 8, 1};
  EXPECT_DOUBLE_EQ(all_gather_time(one, larger, 1600), 5 + 15 * 1 + 15.0 / 16 * 1600 / 100);
  EXPECT_DOUBLE_EQ(message_time(one, 16, 32, 1600), 1 + 1600.0 / 100);
}

TEST(Messages, WaitForTheSlowestHopOfTheChain) {
  const Machine m = with_leaves();
  EXPECT_EQ(message_time(m, 4, 8, 1600), 1 + 1600.0 / 100) << "in a node";
  EXPECT_EQ(message_time(m, 8, 32, 1600), 2 + 1600.0 / 10) << "below a switch";
  EXPECT_EQ(message_time(m, 8, 64, 1600), 2 + 1600.0 / 4) << "8 devices send through a port for 32";
  EXPECT_EQ(message_time(m, 4, 64, 1600), 2 + 1600.0 / 8) << "4 do";
  EXPECT_EQ(message_time(m, 1, 64, 1600), 2 + 1600.0 / 32) << "1 does, faster than a device's own port";
}

TEST(Machine, OfAClusterWithASlowLinkBetweenTwoHalvesHasThemAsALevel) {
  Cluster cluster = load_cluster("dgx-a100:4");
  ASSERT_EQ(machine_of(cluster).levels.size(), 2U);
  cluster.leaves = 2;
  cluster.nodes[2].leaf = cluster.nodes[3].leaf = 1;
  cluster.uplink = {Seconds(50e-6), BytesPerSecond(16e9)};
  const Machine m = machine_of(cluster);
  ASSERT_EQ(m.levels.size(), 3U);
  EXPECT_EQ(m.levels[1].devices, 16);
  EXPECT_EQ(m.levels[1].bandwidth, machine_of(load_cluster("dgx-a100:4")).levels[1].bandwidth);
  EXPECT_EQ(m.levels[2].devices, 32);
  EXPECT_EQ(m.levels[2].bandwidth, 1e9) << "a sixteenth of the port";
  EXPECT_NEAR(m.levels[2].latency - m.levels[1].latency, 100e-6, 1e-12);
}

TEST(Collectives, TakeNoTimeAloneOrForNothing) {
  for (const auto collective : {reduce_scatter_time, all_gather_time, all_reduce_time}) {
    EXPECT_EQ(collective(machine(), group_of(machine(), 1, 1), 100), 0);
    EXPECT_EQ(collective(machine(), group_of(machine(), 1, 4), 0), 0);
  }
}

TEST(Collectives, NeverTakeLessForMore) {
  for (const auto collective : {reduce_scatter_time, all_gather_time, all_reduce_time}) {
    for (const double members : {2, 4, 8, 16, 32}) {
      double before = 0;
      for (double bytes = 1; bytes < 1e9; bytes *= 3) {
        const double time = collective(machine(), group_of(machine(), 1, members), bytes);
        EXPECT_GT(time, before);
        before = time;
      }
    }
  }
}

// A product of whole waves runs at the rate of its depth; one tile more takes a wave more.
TEST(MatmulTime, CountsWavesOfTiles) {
  Machine m;
  m.device.memory_bandwidth = BytesPerSecond(1e30);
  m.constants = {
      .matmul = 0.5, .matmul_depth = 64, .matmul_tile = 10, .matmul_waves = 1, .multiprocessors = 4, .kernel_s = 0};
  const double peak = 1000;
  const double whole = matmul_time(m, peak, 20, 20, 64, 2);
  EXPECT_DOUBLE_EQ(whole, 2.0 * 20 * 20 * 64 / (peak * 0.5 * 64 / (64 + 64)));
  EXPECT_DOUBLE_EQ(matmul_time(m, peak, 20, 21, 64, 2), 2 * whole);
  m.constants.matmul_waves = 0;
  EXPECT_DOUBLE_EQ(matmul_time(m, peak, 20, 21, 64, 2), 1.5 * whole);
}

TEST(MatmulTime, IsBoundByMemoryAndByTheShortestKernel) {
  Machine m;
  m.device.memory_bandwidth = BytesPerSecond(100);
  m.constants.memory = 0.5;
  m.constants.kernel_s = 0.25;
  EXPECT_DOUBLE_EQ(matmul_time(m, 1e30, 10, 20, 30, 2), (10 * 20 + 20 * 30 + 10 * 30) * 2 / 50.0);
  EXPECT_DOUBLE_EQ(matmul_time(m, 1e30, 1, 1, 1, 1), 0.25);
}

TEST(AttentionRate, IsHalfAtItsRowsAndWholeAtManyMore) {
  DeviceConstants device;
  device.attention_forward = 1.2, device.attention_backward = 0.9;
  EXPECT_EQ(attention_forward_rate(device, 10), 1.2) << "whatever the rows where nobody measured";
  device.attention_forward_rows = 2e4, device.attention_backward_rows = 5e3;
  EXPECT_DOUBLE_EQ(attention_forward_rate(device, 2e4), 0.6);
  EXPECT_DOUBLE_EQ(attention_backward_rate(device, 5e3), 0.45);
  EXPECT_NEAR(attention_forward_rate(device, 1e9), 1.2, 1e-4);
}

TEST(Presets, ReadBackWhatTheyWrite) {
  const Presets presets = load_calibration();
  ASSERT_FALSE(presets.devices.empty() || presets.fabrics.empty() || presets.frameworks.empty());
  for (const DevicePreset& preset : presets.devices) {
    const Json json = to_json(preset);
    EXPECT_EQ(to_json(device_preset_from_json(JsonValue(json, "device.json"))), json);
  }
  for (const FabricPreset& preset : presets.fabrics) {
    const Json json = to_json(preset);
    EXPECT_EQ(to_json(fabric_preset_from_json(JsonValue(json, "fabric.json"))), json);
  }
  for (const FrameworkPreset& preset : presets.frameworks) {
    const Json json = to_json(preset);
    EXPECT_EQ(to_json(framework_preset_from_json(JsonValue(json, "framework.json"))), json);
    EXPECT_GT(preset.source.size(), 20u) << preset.name;
  }
}

TEST(Presets, RefuseConstantsThatNobodyKnowsAndValuesOutOfRange) {
  Json json = to_json(load_calibration().fabrics.front());
  const auto refusal = [&] {
    try {
      fabric_preset_from_json(JsonValue(json, "fabric.json"));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  json["fitted"] = {"speed"};
  EXPECT_EQ(refusal(), "fabric.json: fitted[0]: expected the name of a constant, got \"speed\"");
  json["fitted"] = Json::array();
  json["constants"]["efficiency"] = 2;
  EXPECT_THAT(refusal(), testing::StartsWith("fabric.json: constants.efficiency: expected"));
}

TEST(MachineOf, TakesTheConstantsOfDeviceFrameworkAndNetwork) {
  const Machine m = machine_of(load_cluster("dgx-a100:4"), "megatron-lm");
  ASSERT_EQ(m.levels.size(), 2u);
  EXPECT_EQ(m.levels[0].devices, 8);
  EXPECT_EQ(m.levels[1].devices, 32);
  EXPECT_DOUBLE_EQ(m.levels[1].bandwidth, 20.75e9);
  EXPECT_THROW(machine_of(load_cluster("dgx-a100"), "megatron"), Error);
}

TEST(MachineOf, TakesTheRuntimeOfThisProgramWhereItRuns) {
  Cluster cluster = load_cluster("dgx-a100");
  EXPECT_EQ(machine_of(cluster).framework, machine_of(cluster, "megatron-core").framework);
  cluster.name = "local-gpu";
  EXPECT_EQ(machine_of(cluster).framework, machine_of(cluster, "stagecraft").framework);
  EXPECT_NE(machine_of(cluster).framework, machine_of(cluster, "megatron-core").framework);
}

TEST(MachineOf, KnowsADeviceByTheDriversName) {
  Cluster cluster = load_cluster("hgx-h200");
  const Machine named = machine_of(cluster);
  DeviceType& type = cluster.device_types.front();
  type.name = "NVIDIA H200";
  type.peak.fill(FlopsPerSecond(1));
  EXPECT_EQ(machine_of(cluster).constants, named.constants);
  EXPECT_EQ(machine_of(cluster).device.peak, named.device.peak);
  type.name = "NVIDIA H2000";
  EXPECT_EQ(machine_of(cluster).constants.matmul, type.efficiency.matmul);
}

TEST(MachineOf, KnowsADeviceByTheNamesItWasPublishedUnder) {
  EXPECT_EQ(machine_of(load_cluster("dgx1-v100-32gb")).constants, machine_of(load_cluster("dgx1-v100")).constants);
}

// The roofline counts other bytes, and needs another share of the bandwidth for them.
TEST(MachineOf, LeavesTheRooflinesShareOfTheBandwidthToTheRoofline) {
  Cluster cluster = load_cluster("dgx-h100");
  DeviceType& type = cluster.device_types.front();
  type.name = "one of ours";
  type.efficiency.memory = 0.1;
  EXPECT_EQ(machine_of(cluster).constants.memory, DeviceConstants{}.memory);
}

TEST(Collectives, StartSoonerFromGraphs) {
  Machine m = machine_of(load_cluster("hgx-h200"));
  const GroupShape pair = group_of(m, 1, 2);
  const double whole = all_reduce_time(m, pair, 1e6), gather = all_gather_time(m, pair, 1e6);
  m.framework.collective_start = 0.5;
  EXPECT_DOUBLE_EQ(all_reduce_time(m, pair, 1e6), whole - m.levels.front().start / 2);
  EXPECT_DOUBLE_EQ(all_gather_time(m, pair, 1e6), gather - m.levels.front().start / 2);
}

// What `plan` takes for a cluster is what `validate` was right with.
TEST(ClusterPresets, HaveTheRatesThatCalibrationFound) {
  const Presets presets = load_calibration();
  const auto fabric = std::find_if(presets.fabrics.begin(), presets.fabrics.end(),
                                   [](const FabricPreset& p) { return p.name == "infiniband"; });
  ASSERT_NE(fabric, presets.fabrics.end());
  const std::pair<const char*, double> nominal_rates[] = {
      {"dgx1-v100", 12.5e9}, {"dgx-a100", 25e9}, {"dgx-a100-40gb", 25e9}, {"dgx-a100-x64", 25e9},
      {"dgx-h100", 50e9},    {"hgx-h200", 50e9}, {"dgx-h100-x64", 50e9},  {"gb200-nvl72", 50e9}};
  for (const auto& [name, nominal] : nominal_rates) {
    const double rate = load_cluster(name).nodes.front().network.bandwidth.value();
    EXPECT_NEAR(rate / (nominal * fabric->constants.efficiency), 1, 0.01) << name;
  }
  for (const char* name : {"dgx-a100", "dgx-h100"}) {
    const Cluster cluster = load_cluster(name);
    const auto device = std::find_if(presets.devices.begin(), presets.devices.end(), [&](const DevicePreset& p) {
      return p.type.name == cluster.device_types.front().name;
    });
    ASSERT_NE(device, presets.devices.end());
    EXPECT_NEAR(cluster.nodes.front().local.bandwidth.value() / device->constants.local_bandwidth, 1, 0.02) << name;
  }
}

}  // namespace
}  // namespace stagecraft
