#include "models/plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/cost/roofline.hpp"
#include "models/error.hpp"
#include "models/files.hpp"
#include "models/schedule/torch_csv.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

// Four layers in a chain on two unlike devices, by hand, as a user would write it.
constexpr const char* hand_written = R"({
  "format": "stagecraft-plan",
  "network": {"transformer": {"family": "gpt2", "layers": 2, "hidden": 8, "heads": 2, "vocabulary": 16,
              "max_sequence": 4, "tied_head": true}},
  "cluster": {"name": "pair", "device_types": {"d": {"kind": "cpu", "memory": "1 GB", "memory_bandwidth": "1 GB/s",
              "peak": {"fp32": "1 GFLOP/s"}}},
              "nodes": [{"name": "n", "devices": [{"type": "d", "count": 2}],
                         "local": {"kind": "shared-memory", "latency": "1 us", "bandwidth": "1 GB/s"}}]},
  "batch": {"global": 4, "microbatch": 1, "microbatches": 4, "sequence": 4},
  "precision": "fp32",
  "optimizer": "adamw",
  "stages": [{"layers": [0, 2], "rank": 0}, {"layers": [2, 4], "rank": 1}],
  "devices": [[0, 1]],
  "schedule": "gpipe"
})";

Json document() { return parse_json(hand_written, "plan.json"); }

std::string plan_complaint(const Json& json) {
  try {
    plan_from_json(JsonValue(json, "plan.json"));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return {};
}

TEST(Plan, IsEasyToWriteByHand) {
  const Json json = document();
  const Plan plan = plan_from_json(JsonValue(json, "plan.json"));
  EXPECT_EQ(plan.ranks(), 2);
  EXPECT_EQ(plan.replicas(), 1);
  EXPECT_EQ(plan.order.size(), 4U);
  EXPECT_EQ(plan.schedule, make_schedule("gpipe", {2, 1, 4}));
  EXPECT_FALSE(is_priced(plan));
  EXPECT_TRUE(plan.tied_ends());
}

TEST(Plan, TakesAScheduleFromAFileOfTorchs) {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("stagecraft-plan-{}", ::getpid());
  std::filesystem::create_directories(folder);
  write_file(folder / "order.csv", to_torch_csv(make_schedule("1f1b", {2, 1, 4})));
  Json json = document();
  json["schedule"] = "order.csv";
  const std::string file = (folder / "plan.json").string();
  Plan plan = plan_from_json(JsonValue(json, file));
  EXPECT_EQ(plan.schedule.ranks, make_schedule("1f1b", {2, 1, 4}).ranks);
  // Written again, the plan stands on its own.
  EXPECT_EQ(plan_from_json(JsonValue(to_json(plan), "plan.json")).schedule, plan.schedule);
  json["schedule"] = "other.csv";
  EXPECT_THROW(plan_from_json(JsonValue(json, file)), Error);
  std::filesystem::remove_all(folder);
}

TEST(Plan, ReadsBackUnusualSchedules) {
  const auto back = [](const ComputeSchedule& schedule, int microbatches) {
    Json json = document();
    json["batch"] = {{"global", microbatches}, {"microbatch", 1}, {"microbatches", microbatches}, {"sequence", 4}};
    Plan plan = plan_from_json(JsonValue(document(), "plan.json"));
    plan.schedule = schedule;
    json["schedule"] = to_json(plan)["schedule"];
    const Placement placement(schedule);
    for (std::size_t s = 0; s < 2; ++s) {
      const StageId stage{static_cast<std::int32_t>(s)};
      json["stages"][s]["rank"] = placement.ranks(stage).front().value;
      if (placement.is_shared(stage)) json["stages"][s]["second_rank"] = placement.ranks(stage).back().value;
    }
    const Plan read = plan_from_json(JsonValue(json, "plan.json"));
    EXPECT_EQ(plan_from_json(JsonValue(to_json(read), "plan.json")).schedule, schedule);
    return read.schedule;
  };
  for (const char* name : {"dualpipe", "chimera", "inference", "zb-h1"}) {
    const ComputeSchedule schedule = make_schedule(name, {2, 1, 4});
    EXPECT_EQ(back(schedule, 4), schedule) << name;
  }
  ScheduleShape sliced{2, 1, 4};
  sliced.slices = 2;
  EXPECT_EQ(back(make_schedule("seq-1f1b", sliced), 4), make_schedule("seq-1f1b", sliced));
}

TEST(Plan, RefusesAsynchronousSchedulesWithATiedTable) {
  Json json = document();
  json["schedule"] = "pipedream";
  EXPECT_THAT(plan_complaint(json), testing::HasSubstr("would update at different times"));
}

TEST(Plan, ReadsBackWhatItWrote) {
  const Json json = document();
  Plan plan = plan_from_json(JsonValue(json, "plan.json"));
  plan.stages[1].cost.forward = Seconds(0.1);
  plan.prediction.timeline_step = Seconds(1.0 / 3);
  plan.prediction.peak_memory = {Bytes(1), Bytes(2)};
  const Json written = to_json(plan);
  const Plan back = plan_from_json(JsonValue(written, "plan.json"));
  EXPECT_EQ(to_json(back), written);
  EXPECT_EQ(back.stages, plan.stages);
  EXPECT_EQ(back.schedule, plan.schedule);
}

TEST(Plan, RefusesStagesThatOverlapOrLeaveGaps) {
  Json json = document();
  json["stages"][1]["layers"] = {1, 4};
  EXPECT_EQ(plan_complaint(json), "plan.json: stages[1].layers: layer 1 is already in stage 0");
  json["stages"][1]["layers"] = {3, 4};
  EXPECT_EQ(plan_complaint(json), "plan.json: stages[1].layers: layers 2 to 2 are in no stage");
  json["stages"][1]["layers"] = {2, 3};
  EXPECT_EQ(plan_complaint(json), "plan.json: stages[1].layers: layers 3 to 3 are in no stage");
  json["stages"][1]["layers"] = {2, 9};
  EXPECT_EQ(plan_complaint(json), "plan.json: stages[1].layers: ends at 9, but the network has 4 layers");
  json["stages"][1]["layers"] = {2, 2};
  EXPECT_EQ(plan_complaint(json), "plan.json: stages[1].layers: expected at least one layer");
}

TEST(Plan, RefusesDevicesThatAreMissingOrUsedTwice) {
  Json json = document();
  json["devices"] = {{0, 0}};
  EXPECT_EQ(plan_complaint(json), "plan.json: devices[0][1]: device 0 is used twice");
  json["devices"] = {{0, 7}};
  EXPECT_EQ(plan_complaint(json), "plan.json: devices[0][1]: device 7 does not exist: cluster 'pair' has 2");
  json["devices"] = Json::array();
  EXPECT_THAT(plan_complaint(json), HasSubstr("devices: expected at least one replica"));
}

TEST(Plan, RefusesABatchThatDoesNotMultiplyOut) {
  Json json = document();
  json["batch"]["global"] = 5;
  EXPECT_EQ(plan_complaint(json),
            "plan.json: batch.global: expected microbatch * microbatches * replicas = 1 * 4 * 1 = 4, got 5");
  json["batch"]["global"] = 1e18;
  EXPECT_THAT(plan_complaint(json), HasSubstr("batch.global: expected a whole number from 1 to"));
}

TEST(Plan, RefusesAnOrderThatBreaksAnEdge) {
  Json json = document();
  json["order"] = {0, 2, 1, 3};
  EXPECT_THAT(plan_complaint(json), HasSubstr("order[1]: layer 'block.1' stands before 'block.0', which it needs"));
  json["order"] = {0, 1, 1, 3};
  EXPECT_EQ(plan_complaint(json), "plan.json: order[2]: layer 1 stands here twice");
}

TEST(Plan, RefusesASchedulesThatCannotFinishAndMarksTheAction) {
  Json json = document();
  json["schedule"] = {{"name", "mine"},
                      {"ranks", {"0F0 0B0 0F1 0B1 0F2 0B2 0F3 0B3", "1F1 1B1 1F0 1B0 1F2 1B2 1F3 1B3"}}};
  EXPECT_THAT(plan_complaint(json), HasSubstr("plan.json: schedule: "));
  json["schedule"]["ranks"][0] = "0F0 0G0";
  EXPECT_THAT(plan_complaint(json), HasSubstr("schedule.ranks[0]: action 1: expected one such as \"2F0\""));
  json["schedule"] = "gpip";
  EXPECT_THAT(plan_complaint(json), HasSubstr("gpipe"));
}

TEST(Plan, NamesUnknownFieldsAndWrongTypes) {
  Json json = document();
  json["stage"] = 1;
  EXPECT_EQ(plan_complaint(json), "plan.json: unknown field 'stage' (did you mean 'stages'?)");
  json = document();
  json["batch"]["microbatch"] = "1";
  EXPECT_THAT(plan_complaint(json), HasSubstr("plan.json: batch.microbatch: expected a whole number"));
  json = document();
  json["precision"] = "fp33";
  EXPECT_THAT(plan_complaint(json), HasSubstr("plan.json: precision: expected one of 'fp32'"));
}

// The hand-written plan on four devices: two shards for each of its two ranks.
Json sharded_document() {
  Json json = document();
  json["cluster"]["nodes"][0]["devices"][0]["count"] = 8;
  json["layout"] = {{"tensor", 2}, {"sequence_parallel", true}};
  json["devices"] = {{0, 2}, {1, 3}};
  return json;
}

TEST(Plan, CountsReplicasInRowsOfTheirShards) {
  Json json = sharded_document();
  const Plan plan = plan_from_json(JsonValue(json, "plan.json"));
  EXPECT_EQ(plan.shards(), 2);
  EXPECT_EQ(plan.replicas(), 1);
  EXPECT_EQ(dimension_order(plan), megatron_order);
  EXPECT_EQ(to_json(plan)["layout"], json["layout"]);
  EXPECT_EQ(plan_from_json(JsonValue(to_json(plan), "plan.json")).layout, plan.layout);
}

TEST(Plan, WritesNoLayoutWhereADeviceIsARank) {
  EXPECT_FALSE(to_json(plan_from_json(JsonValue(document(), "plan.json"))).contains("layout"));
}

TEST(Plan, RefusesShardsThatTheNetworkDoesNotDivideInto) {
  Json json = sharded_document();
  json["devices"] = {{0, 2}, {1, 3}, {4, 5}};
  EXPECT_THAT(plan_complaint(json), HasSubstr("devices: expected 2 rows a replica (tensor 2 x context 1), got 3 rows"));
  json = sharded_document();
  json["layout"]["tensor"] = 3;
  json["devices"] = {{0, 2}, {1, 3}, {4, 5}};
  EXPECT_THAT(plan_complaint(json), HasSubstr("layout.tensor: expected a divisor of heads = 2, got 3"));
  json = sharded_document();
  json["layout"]["expert"] = 2;
  EXPECT_THAT(plan_complaint(json), HasSubstr("layout.expert: expected 1: the network has no experts"));
  json = sharded_document();
  json["layout"]["zero"] = 4;
  EXPECT_THAT(plan_complaint(json), HasSubstr("layout.zero"));
  json = sharded_document();
  json["layout"]["tensr"] = 2;
  EXPECT_THAT(plan_complaint(json), HasSubstr("tensr"));
}

TEST(Plan, FindsTheOrderThatDevicesAreNumberedBy) {
  ParallelLayout layout;
  layout.pipeline = 2;
  layout.tensor = 2;
  layout.data = 3;
  Plan plan;
  plan.layout.tensor = 2;
  layout.order = {Dimension::data, Dimension::tensor, Dimension::context, Dimension::pipeline};
  plan.devices = devices_of(layout);
  EXPECT_EQ(plan.devices[1], (std::vector{DeviceId{3}, DeviceId{9}})) << "shard 1 of replica 0";
  ASSERT_TRUE(dimension_order(plan).has_value());
  ParallelLayout found = layout;
  found.order = *dimension_order(plan);
  EXPECT_EQ(devices_of(found), plan.devices);
  std::swap(plan.devices[0], plan.devices[5]);
  EXPECT_FALSE(dimension_order(plan).has_value());
}

// A second forward a layer, as much longer as neighbours are busy and as the load is high; a parameter takes a byte and
// a second to update.
class SharingModel final : public CostModel {
 public:
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override {
    LayerCost cost;
    const int busy = workload.busy_neighbours.value_or(most_neighbours(device));
    cost.forward = cost.backward_input = cost.backward_weight = Seconds((1 + busy) * workload.load.forward);
    if (workload.beside_forwards) cost.forward = Seconds(1 + busy - 0.5);
    cost.backward_saving = Seconds(0.5);
    cost.weights = Bytes(static_cast<double>(layer.parameters));
    cost.optimizer = Seconds(static_cast<double>(layer.parameters));
    return cost;
  }
  Overheads overheads(const DeviceType&) const override { return {Seconds(0.25), Seconds(10), 1, 2}; }
};

TEST(Plan, IsPricedWithItsOverheadsAndBesideEachNumberOfBusyNeighbours) {
  Json json = document();
  json["cluster"]["device_types"]["d"]["kind"] = "gpu";
  json["cluster"]["device_types"]["d"]["slice"] = {{"multiprocessors", 40}, {"of", 132}};
  Plan plan = plan_from_json(JsonValue(json, "plan.json"));
  price(plan, SharingModel());
  const StageCost& cost = plan.stages[1].cost;  // two layers
  EXPECT_EQ(cost.forward, Seconds(2 * 3 + 0.25)) << "three slices of a GPU: two neighbours";
  EXPECT_EQ(cost.backward(), Seconds(2 * (2 * 3 - 0.5) + 0.25)) << "one action";
  ASSERT_EQ(cost.beside.size(), 3u);
  EXPECT_EQ(cost.beside[0].forward, Seconds(2 * 1 + 0.25));
  EXPECT_EQ(cost.beside[1].backward_input, Seconds(2 * 2 + 0.25));
  EXPECT_EQ(cost.beside[2], cost.times());
  ASSERT_TRUE(cost.beside_forwards);
  EXPECT_EQ(cost.beside_forwards->forward, Seconds(2 * 2.5 + 0.25));
  EXPECT_EQ(cost.beside_forwards->backward_weight, cost.backward_weight);
  EXPECT_EQ(plan_from_json(JsonValue(to_json(plan), "plan.json")).stages, plan.stages);
}

TEST(Plan, IsPricedAtTheLoadOfEachStage) {
  Plan plan = plan_from_json(JsonValue(document(), "plan.json"));
  price(plan, SharingModel());
  const Plan full = plan;
  ASSERT_EQ(plan.stages.size(), 2u);
  const std::vector<Load> loads{{0.5, 0.5}, {1, 1}};
  price(plan, SharingModel(), loads);
  EXPECT_EQ(plan.stages[0].cost.forward - Seconds(0.25), (full.stages[0].cost.forward - Seconds(0.25)) * 0.5);
  EXPECT_EQ(plan.stages[1].cost, full.stages[1].cost);
}

TEST(Plan, PricesATableOnceWhereBothItsStagesAreOnOneRank) {
  Json json = document();
  Plan apart = plan_from_json(JsonValue(json, "plan.json"));
  price(apart, SharingModel());
  json["devices"] = {{0}};
  json["stages"][1]["rank"] = 0;
  json["schedule"] = {{"name", "custom"},
                      {"ranks", {"0F0 1F0 1B0 0B0 0F1 1F1 1B1 0B1 0F2 1F2 1B2 0B2 0F3 1F3 1B3 0B3"}}};
  Plan together = plan_from_json(JsonValue(json, "plan.json"));
  price(together, SharingModel());
  constexpr double table = 16 * 8;
  EXPECT_EQ(apart.stages[0].cost.weights, together.stages[0].cost.weights);
  EXPECT_EQ(apart.stages[1].cost.weights - together.stages[1].cost.weights, Bytes(table));
  // The second stage of a rank adds no overhead of the step.
  EXPECT_EQ(apart.stages[1].cost.optimizer - together.stages[1].cost.optimizer, Seconds(table + 10));
}

TEST(Plan, CountsWhatItsMessagesHoldWhereStagesAreApart) {
  Json json = document();
  Plan apart = plan_from_json(JsonValue(json, "plan.json"));
  price(apart, SharingModel());
  const Bytes message = apart.stages[0].cost.boundary;
  EXPECT_GT(message, Bytes(0));
  EXPECT_EQ(apart.stages[0].cost.stash, message) << "an output that may not have been fetched yet";
  EXPECT_EQ(apart.stages[0].cost.workspace, Bytes(0)) << "sends no gradients";
  EXPECT_EQ(apart.stages[1].cost.stash, Bytes(0)) << "sends no outputs";
  EXPECT_EQ(apart.stages[1].cost.workspace, 2 * message);
}

TEST(Plan, IsNotPricedByAModelOfWholeLayersWhenSharded) {
  Plan plan = plan_from_json(JsonValue(sharded_document(), "plan.json"));
  EXPECT_THROW(price(plan, RooflineCostModel()), Error);
}

}  // namespace
}  // namespace stagecraft
