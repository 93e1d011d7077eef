#include "models/cost/roofline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"

namespace stagecraft {
namespace {

// 16 FLOP/s in fp32 of which products reach 8 and attention 4; 8 B/s of which 4 are reached; 1 s a launch.
DeviceType device() {
  DeviceType type;
  type.name = "d";
  type.memory_bandwidth = BytesPerSecond(8);
  type.peak[static_cast<std::size_t>(DataType::fp32)] = FlopsPerSecond(16);
  type.efficiency = {0.5, 0.25, 0.5, Flops(0), Seconds(1)};
  return type;
}

// 2 samples of 4 tokens: 32 FLOP of products, 64 FLOP of attention, 8 + 32 elements moved.
Layer layer() {
  Layer result;
  result.name = "l";
  result.parameters = 2;
  result.matmul_flops.per_token = 4;
  result.attention_flops.per_token_pair = 2;
  result.moved = {0, 1, 1};
  result.stash.elements = {0, 3, 1};
  result.attention_stash.elements = {0, 0, 1};
  result.input.per_token = 1;
  return result;
}

Workload workload(Recompute recompute = Recompute::none, bool fused = false) {
  return {.microbatch = 2,
          .sequence = 4,
          .precision = DataType::fp32,
          .optimizer = Optimizer::adamw,
          .recompute = recompute,
          .fused_attention = fused};
}

LayerCost price(const Layer& layer, const Workload& workload, const DeviceType& type = device()) {
  return RooflineCostModel().layer_cost(layer, workload, type);
}

TEST(Roofline, ForwardAddsProductsAttentionMemoryAndLaunch) {
  EXPECT_EQ(price(layer(), workload()).forward, Seconds(32.0 / 8 + 64.0 / 4 + 40.0 * 4 / 4 + 1));
}

TEST(Roofline, TheInputGradientDoublesAttentionAndTheWeightGradientHasNone) {
  const LayerCost cost = price(layer(), workload());
  EXPECT_EQ(cost.backward_input, Seconds(32.0 / 8 + 2 * 64.0 / 4 + 40.0 * 4 / 4 + 1));
  EXPECT_EQ(cost.backward_weight, Seconds(32.0 / 8 + 1));
}

TEST(Roofline, SmallProductsRunBelowTheirPeakRate) {
  DeviceType type = device();
  type.efficiency.half_rate = Flops(32);  // as large as the product: half of the rate
  EXPECT_EQ(price(layer(), workload(), type).backward_weight, Seconds(2 * 32.0 / 8 + 1));
}

TEST(Roofline, AProductIsNeverFasterThanItsWeightsAreRead) {
  Layer wide = layer();
  wide.parameters = 100;
  const LayerCost cost = price(wide, workload());
  EXPECT_EQ(cost.forward - price(layer(), workload()).forward, Seconds(100.0 * 4 / 8 - 32.0 / 8));
  EXPECT_EQ(cost.backward_weight, Seconds(2 * 100.0 * 4 / 8 + 1)) << "gradients are read and written";
}

TEST(Roofline, ALayerWithoutParametersHasNeitherWeightGradientNorOptimizer) {
  Layer plain = layer();
  plain.parameters = 0;
  const LayerCost cost = price(plain, workload());
  EXPECT_EQ(cost.backward_weight, Seconds(0));
  EXPECT_EQ(cost.optimizer, Seconds(0));
  EXPECT_EQ(cost.weights, Bytes(0));
}

TEST(Roofline, TheOptimizerMovesWhatItTouches) {
  EXPECT_EQ(price(layer(), workload()).optimizer, Seconds(2 * 32.0 / 4 + 1));
}

TEST(Roofline, FullRecomputationRepeatsTheForward) {
  const LayerCost cost = price(layer(), workload(Recompute::full));
  EXPECT_EQ(cost.recompute, cost.forward);
  EXPECT_EQ(cost.stash, Bytes(8 * 4));
  Layer head = layer();
  head.input = {};
  EXPECT_EQ(price(head, workload(Recompute::full)).recompute, Seconds(0));
}

TEST(Roofline, SelectiveRecomputationRepeatsTheAttentionCore) {
  const LayerCost cost = price(layer(), workload(Recompute::selective));
  EXPECT_EQ(cost.recompute, Seconds(64.0 / 4 + 32.0 * 4 / 4 + 1));
  EXPECT_EQ(cost.stash, Bytes(24 * 4));
  EXPECT_EQ(price(layer(), workload(Recompute::selective, true)).recompute, Seconds(0));
}

TEST(Roofline, FusedAttentionMovesNoSquare) {
  EXPECT_EQ(price(layer(), workload(Recompute::none, true)).forward, Seconds(32.0 / 8 + 64.0 / 4 + 8.0 * 4 / 4 + 1));
}

TEST(Roofline, MemoryFollowsTheParameters) {
  const LayerCost cost = price(layer(), workload());
  EXPECT_EQ(cost.weights, Bytes(8));
  EXPECT_EQ(cost.gradients, Bytes(8));
  EXPECT_EQ(cost.optimizer_state, Bytes(16));
  EXPECT_EQ(cost.stash, Bytes((24 + 32) * 4));
}

TEST(Roofline, ReservesMemoryOnGpusForTheDriverAndCommunication) {
  Cluster cluster;
  cluster.name = "local-gpus-of-mine";
  EXPECT_EQ(reserved_memory(cluster), Bytes(2.5e9));
  for (const char* here : {"local-gpu", "local-gpu:slices=4", "local-cpu:2"}) {
    cluster.name = here;
    EXPECT_EQ(reserved_memory(cluster), Bytes(0)) << here;
  }
  const RooflineCostModel model(Bytes(5));
  DeviceType device;
  device.kind = DeviceKind::cpu;
  EXPECT_EQ(model.overheads(device).reserved, Bytes(0));
  device.kind = DeviceKind::gpu;
  EXPECT_EQ(model.overheads(device).reserved, Bytes(5));
  device.group = 4;
  EXPECT_EQ(model.overheads(device).reserved, Bytes(20));
  EXPECT_EQ(RooflineCostModel().overheads(device).reserved, Bytes(0));
}

TEST(Roofline, RefusesAPrecisionThatTheDeviceLacksNamingThoseItHas) {
  Workload wanted = workload();
  wanted.precision = DataType::bf16;
  try {
    price(layer(), wanted);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_STREQ(error.what(), "device type 'd' does not compute in bf16; it does in fp32");
  }
}

// Qi et al. 2024 (Zero Bubble, arXiv 2401.10241): a middle stage of GPT models on A100 80 GB. Layers, hidden and heads
// are of table 3, s = 1024; the milliseconds of forward, input and weight gradient are of table 9.
struct PublishedStage {
  std::int64_t layers, hidden, heads, microbatch;
  double forward, backward_input, backward_weight;
};

TEST(Roofline, IsWithinATenthOfPublishedStageTimes) {
  const DeviceType a100 = load_cluster("dgx-a100").device_types[0];
  for (const PublishedStage& stage :
       {PublishedStage{3, 2304, 24, 6, 18.522, 18.086, 9.337}, PublishedStage{4, 4096, 32, 3, 29.718, 29.444, 19.927},
        PublishedStage{3, 5120, 40, 1, 11.347, 11.248, 8.132}, PublishedStage{2, 6144, 48, 1, 10.419, 10.207, 7.715}}) {
    Transformer gpt;
    gpt.family = "gpt2";
    gpt.layers = 1;
    gpt.hidden = stage.hidden;
    gpt.heads = gpt.kv_heads = stage.heads;
    gpt.head_size = stage.hidden / stage.heads;
    gpt.ffn = 4 * stage.hidden;
    gpt.vocabulary = 50304;
    gpt.max_sequence = 1024;
    gpt.dropout = gpt.qkv_bias = gpt.linear_bias = true;
    const Workload fp16{.microbatch = stage.microbatch, .sequence = 1024, .precision = DataType::fp16};
    const LayerCost block = price(build_graph(gpt)[1], fp16, a100);
    const auto milliseconds = [&](Seconds time) { return static_cast<double>(stage.layers) * time.value() * 1e3; };
    EXPECT_NEAR(milliseconds(block.forward) / stage.forward, 1, 0.1) << stage.hidden;
    EXPECT_NEAR(milliseconds(block.backward_input) / stage.backward_input, 1, 0.1) << stage.hidden;
    EXPECT_NEAR(milliseconds(block.backward_weight) / stage.backward_weight, 1, 0.1) << stage.hidden;
  }
}

}  // namespace
}  // namespace stagecraft
