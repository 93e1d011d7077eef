#include "reports/tables.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "reports/text_width.hpp"
#include "tests/reports/example.hpp"

namespace stagecraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Tables, GroupTheLayersOfANetworkByKind) {
  const Plan plan = example_plan();
  EXPECT_EQ(network_table(plan.network, plan.workload()), R"(toy: 4,000 parameters in 4 layers
FLOPs: forward, one token of 32; stash: fp32, one sample, recompute none

kind   layers  parameters  FLOPs/token  stash/sample
block       4       4,000   8.00 kFLOP      2.00 KiB
total       4       4,000   8.00 kFLOP      2.00 KiB
)");
  const Json json = network_summary(plan.network, plan.workload());
  EXPECT_EQ(json["parameters"], 4000);
  EXPECT_EQ(json["kinds"][0]["count"], 4);
  EXPECT_EQ(json["kinds"][0]["stash_bytes_per_sample"], 2048.0);
}

TEST(Tables, CountTiedParametersOnceWithTheirOwner) {
  Plan plan = example_plan();
  Layer& head = plan.network.graph[3];
  head.kind = "head";
  head.tied_to = "block.0";
  head.tied_parameters = 700;
  const Json json = network_summary(plan.network, plan.workload());
  EXPECT_EQ(json["parameters"], 3300);
  EXPECT_EQ(json["kinds"][0]["parameters"], 3000);
  EXPECT_EQ(json["kinds"][1]["parameters"], 300);
}

TEST(Tables, ShowACluster) {
  EXPECT_EQ(cluster_table(example_plan().cluster), R"(laptop: 2 devices in 1 node

device  count    memory  bandwidth          fp32  tf32  16 bit  fp8
core        2  4.00 KiB  1.00 GB/s  1.00 GFLOP/s     -       -    -

nodes   devices  inside the node                network ports
    1  2 x core  shared-memory 200 B/s, 500 ms              -
)");
}

TEST(Tables, CutNamesOfDevicesOnlyWhereThereIsNoRoom) {
  Plan plan = example_plan();
  std::string& name = plan.cluster.device_types[0].name;
  name = std::string(20, 'm');
  EXPECT_THAT(plan_table(plan), AllOf(HasSubstr(name), HasSubstr("  rank  ")));
  name = std::string(28, 'm');
  EXPECT_THAT(plan_table(plan), AllOf(HasSubstr(name), Not(HasSubstr("  rank  "))));
  name = std::string(90, 'm');
  EXPECT_THAT(plan_table(plan), HasSubstr("mmm~  "));
  EXPECT_EQ(longest_line(plan_table(plan)), max_columns);
}

TEST(Tables, KeepClustersOfManyUnlikeNodesWithinAHundredColumns) {
  Cluster cluster = example_plan().cluster;
  cluster.uplink = Link{Seconds(1e-6), BytesPerSecond(1e9)};
  for (int i = 0; i < 6; ++i) {
    DeviceType type = cluster.device_types[0];
    type.name = std::string(40, 'x') + std::to_string(i);
    cluster.device_types.push_back(type);
    cluster.devices.push_back({i + 1, i + 1});
    Node node = cluster.nodes[0];
    node.devices = {DeviceId{0}, DeviceId{i + 2}};
    node.local_kind = std::string(40, 'y');
    cluster.nodes.push_back(node);
  }
  EXPECT_LE(longest_line(cluster_table(cluster)), max_columns);
  EXPECT_THAT(cluster_table(cluster), HasSubstr("fabric: 1 leaf, uplink 1.00 GB/s, 1.00 us each"));
}

TEST(Tables, ShowAPlan) {
  EXPECT_EQ(plan_table(example_plan()), R"(network    toy, 4,000 parameters
cluster    laptop, 2 of 2 devices used
layout     2 stages on 2 ranks, 1 replica, schedule gpipe
batch      2 samples of 32 tokens a step: 2 micro-batches of 1 a replica
training   fp32, adamw, recompute none
costs      figures of the devices
step time  closed form 16.0 s, timeline -, SimGrid -
expected   4 tokens/s, bubble 0.0 % (idle/total)

stage  layers            rank  device  forward  backward  sends  rank mem.        of
    0  block.0..block.1     0  core     2.00 s    3.00 s  100 B   2.00 KiB  4.00 KiB
    1  block.2..block.3     1  core     2.00 s    3.00 s  100 B   2.00 KiB  4.00 KiB
)");
}

TEST(Tables, TakeRankMemoryFromTheStagesWhereNothingWasPredicted) {
  Plan plan = example_plan();
  plan.prediction.peak_memory.clear();
  plan.stages[1].cost.stash = Bytes(1000);
  const auto memory = rank_memory(plan);
  ASSERT_EQ(memory.size(), 2U);
  EXPECT_EQ(memory[0].needed, Bytes(1536 + 2 * 256));
  EXPECT_EQ(memory[1].needed, Bytes(1536 + 2 * 1000));
  EXPECT_EQ(memory[1].available, Bytes(4096));
}

TEST(Tables, ShowBothRanksOfAStage) {
  Plan plan = example_plan();
  for (PlanStage& stage : plan.stages) stage.rank = RankId{0}, stage.second_rank = RankId{1};
  const auto rows = stage_rows(plan);
  ASSERT_EQ(rows.size(), 1U + 4U);
  for (std::size_t row = 1; row < rows.size(); ++row) {
    EXPECT_EQ(rows[row][0], row < 3 ? "0" : "1");
    EXPECT_EQ(rows[row][2], row % 2 == 1 ? "0" : "1");
  }
  plan.prediction.peak_memory.clear();
  const auto memory = rank_memory(plan);
  EXPECT_EQ(memory[0].needed, Bytes(2 * (1536 + 2 * 256)));
  EXPECT_EQ(memory[1].needed, memory[0].needed);
}

TEST(Tables, KeepPlansWithLongNamesWithinAHundredColumns) {
  Plan plan = example_plan();
  for (const LayerId id : plan.order) plan.network.graph[id].name = std::string(50, 'n') + std::to_string(id);
  plan.cluster.device_types[0].name = plan.cluster.name = plan.network.name = std::string(80, 'd');
  EXPECT_LE(longest_line(plan_table(plan)), max_columns);
  EXPECT_LE(longest_line(network_table(plan.network, plan.workload())), max_columns);
}

TEST(Tables, ShowASchedule) {
  const std::string table = schedule_table(make_schedule("gpipe", {2, 1, 2}));
  EXPECT_THAT(table, HasSubstr("gpipe: 2 stages on 2 ranks, 2 micro-batches\n"
                               "with F 1, B 2: 9 units, bubble 33.3 % (idle/total), 33.3 % (zero-bubble span)\n"
                               "in flight, by rank: 2 2\n"));
  EXPECT_LE(longest_line(schedule_table(make_schedule("1f1b", {8, 1, 64}))), max_columns);
  EXPECT_THAT(schedule_table(make_schedule("zb-h1", {2, 1, 2}), {2, 2, 1}, 0.5),
              HasSubstr("with F 2, I 2, W 1, messages 0.5: 14 units, bubble 28.6 % (idle/total), 28.6 % (zero-bubble "
                        "span)\nin flight, by rank: 2 2 (until I: 2 1)\n"));
  EXPECT_THAT(schedule_table(make_schedule("inference", {2, 1, 2})),
              HasSubstr("2 micro-batches, forwards alone\nwith F 1: 3 units"));
  EXPECT_THAT(schedule_table(make_schedule("pipedream", {2, 1, 2})),
              HasSubstr("a step every 1 micro-batch, without flush"));
}

}  // namespace
}  // namespace stagecraft
