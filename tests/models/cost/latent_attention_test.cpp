// Latent attention, unlike blocks and folded experts in the step model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/cost/step_model.hpp"
#include "models/network/layer_graph.hpp"

namespace stagecraft {
namespace {

// Latent attention of heads of 192 (128 + 64) and 128, leading dense blocks, shared experts: 7 blocks of DeepSeek-V2.
TrainingJob deepseek() {
  TrainingJob job{*load_network("deepseek-v2").transformer, 64, 4096};
  job.network.layers = 7;
  job.network.dense_layers = 2;
  return job;
}
StepModel deepseek_model() { return {deepseek(), machine_of(load_cluster("dgx-h100:2"))}; }

TEST(StepModel, HoldsTheParametersOfTheNetworkWhateverTheLayout) {
  const StepModel step = deepseek_model();
  const double total = static_cast<double>(total_parameters(build_graph(step.job().network)));
  const double scales = 512 + 1536 + 2 * 5120;                          // of norms, on every tensor-parallel device
  const double narrow = 5120 * (1536 + 512 + 64), router = 5120 * 160;  // and these
  const auto held = [&](const char* text) {
    const ParallelLayout layout = parse_layout(text);
    EXPECT_EQ(step.refuse(layout), "") << text;
    const Shard shard = step.shard(layout);
    double sum = 0;
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) sum += step.memory(layout, shard, rank).weights / 2;
    return sum;
  };
  EXPECT_DOUBLE_EQ(held("m64 1f1b"), total);
  EXPECT_DOUBLE_EQ(held("p3 m64 1f1b"), total);
  EXPECT_DOUBLE_EQ(held("p2 v3 m64 interleaved-1f1b"), total);
  EXPECT_DOUBLE_EQ(held("p3 first=1 m64 1f1b"), total);
  EXPECT_DOUBLE_EQ(4 * held("t4 m64 1f1b sp"), total + 3 * (7 * (scales + narrow) + 5 * router + 5120));
  // Experts apart: each of 16 devices has a sixteenth of them, whether they are cut or whole.
  const double experts = 5 * 160 * 3 * 5120.0 * 1536;
  EXPECT_DOUBLE_EQ(held("d16 e16 m4 1f1b"), total - experts * 15 / 16);
  const double cut = held("t4 d4 e4 m16 1f1b sp"), whole = held("t4 d4 e16 m16 1f1b sp");
  EXPECT_DOUBLE_EQ(cut, whole);
  EXPECT_DOUBLE_EQ(held("t4 d4 m16 1f1b sp") - whole, experts / 4 * 3 / 4);
}

TEST(StepModel, ComputesWhatTheProjectionsOfLatentAttentionTake) {
  Machine machine = machine_of(load_cluster("dgx-h100:2"));
  // Nothing but the operations of products and attention.
  machine.constants.matmul_depth = machine.constants.matmul_waves = machine.constants.kernel_s = 0;
  machine.constants.matmul_tile = 1;
  machine.constants.attention_forward = machine.constants.matmul;
  machine.constants.attention_backward = machine.constants.matmul;
  machine.constants.attention_forward_rows = machine.constants.attention_backward_rows = 0;
  machine.device.memory_bandwidth = BytesPerSecond(1e30);
  machine.framework.dispatch_forward_s = machine.framework.dispatch_backward_s = 0;
  machine.framework.product = 1;
  TrainingJob job = deepseek();
  job.network.experts = 128;  // of 192 tokens each
  const StepModel step(job, machine);
  const double rate = product_peak(job, machine) * machine.constants.matmul;
  const double s = 4096, C = 5120, h = 128;
  const double projections = C * 1536 + 1536 * h * 192 + C * (512 + 64) + 512 * h * (128 + 128) + h * 128 * C;
  const double pairs = 2 * s * h * (192 + 128);
  const double experts = C * 128 + (6 + 2) * 3 * C * 1536;
  const Shard shard = step.shard(parse_layout("m64 1f1b"));
  EXPECT_NEAR(shard.block.forward, s * (2 * (projections + experts) + pairs) / rate, 1e-9 * shard.block.forward);
  EXPECT_NEAR(shard.dense_block.forward, s * (2 * (projections + 3 * C * 12288) + pairs) / rate,
              1e-9 * shard.block.forward);
  EXPECT_NEAR(shard.block.backward_weight, s * 2 * (projections + experts) / rate, 1e-9 * shard.block.forward);
  // Narrow products and the router are on every tensor-parallel device; with sequence parallelism the narrow ones of
  // its tokens only.
  const double narrow = C * (1536 + 512 + 64);
  const auto forward = [&](const char* text) { return step.shard(parse_layout(text)).dense_block.forward; };
  EXPECT_NEAR(forward("t4 m64 1f1b sp"), forward("m64 1f1b") / 4, 1e-9 * forward("m64 1f1b"));
  EXPECT_NEAR(forward("t4 m64 1f1b"), forward("m64 1f1b") / 4 + s * 2 * narrow * 3 / 4 / rate,
              1e-9 * forward("m64 1f1b"));
}

TEST(StepModel, GathersNarrowVectorsAndPassesKeysAndValuesOfLatentAttention) {
  const StepModel step = deepseek_model();
  const GroupShape group = group_of(step.machine(), 1, 8);
  const double token = 2 * 4096.0;  // bytes of an element of all tokens
  const auto gather = [&](double width) { return all_gather_time(step.machine(), group, token * width); };
  const auto block = [&](const char* layout) { return step.shard(parse_layout(layout)).block; };
  EXPECT_DOUBLE_EQ(block("t8 m64 sp").tensor_forward, gather(1536 + 512 + 64) + 3 * gather(5120));
  const double sum = all_reduce_time(step.machine(), group, token * 5120);
  EXPECT_DOUBLE_EQ(block("t8 m64").tensor_forward, 2 * sum);
  EXPECT_DOUBLE_EQ(block("t8 m64").tensor_backward,
                   sum + all_reduce_time(step.machine(), group, token * (1536 + 512 + 64)));
}

TEST(StepModel, KeepsTheActivationsOfLatentAttention) {
  const StepModel step = deepseek_model();
  const auto dense = [&](const char* text) { return step.shard(parse_layout(text)).dense_block.stash; };
  const double kept = step.machine().framework.gated_kept;
  const double whole = 4 * 5120 + 2 * (1536 + 512), heads = 128 * (2 * 192 + 2 * 128) + kept * 12288;
  EXPECT_DOUBLE_EQ(dense("m64 1f1b")[0], 2 * 4096.0 * (whole + heads));
  EXPECT_DOUBLE_EQ(dense("t4 m64 1f1b")[0], 2 * 4096.0 * (whole + heads / 4));
  EXPECT_DOUBLE_EQ(dense("t4 m64 1f1b sp")[0], 2 * 4096.0 * (whole + heads) / 4);
  EXPECT_DOUBLE_EQ(dense("m64 1f1b")[2], 2 * 4096.0 * 5120);
}

// Unlike blocks: each rank has those of its place, and the ranks together all of them.
TEST(StepModel, FindsTheLeadingDenseBlocksOnTheirRanks) {
  TrainingJob job = deepseek();
  job.network.dense_layers = 3;
  const auto dense = [&](const char* text) {
    const StepModel step(job, machine_of(load_cluster("dgx-h100:2")));
    const ParallelLayout layout = parse_layout(text);
    std::vector<std::int64_t> counts;
    for (int rank = 0; rank < layout.pipeline; ++rank) counts.push_back(step.dense_layers_of(layout, rank));
    return counts;
  };
  using testing::ElementsAre;
  EXPECT_THAT(dense("m64"), ElementsAre(3));
  EXPECT_THAT(dense("p2 m64"), ElementsAre(3, 0));                      // of 4 3
  EXPECT_THAT(dense("p3 m64"), ElementsAre(2, 1, 0));                   // of 2 3 2
  EXPECT_THAT(dense("p3 first=1 m64"), ElementsAre(1, 2, 0));           // of 1 3 3
  EXPECT_THAT(dense("p2 v3 m64 interleaved-1f1b"), ElementsAre(2, 1));  // of 1 1 2 and 1 1 1
  EXPECT_THAT(dense("p2 v2 m64 zb-v"), ElementsAre(2, 1));              // of 2 2 and 1 2, the other way round
  job.stage_blocks = {1, 0, 1, 5};
  EXPECT_THAT(dense("p2 v2 m64 interleaved-1f1b"), ElementsAre(2, 1));
  EXPECT_THAT(dense("p2 v2 m64 zb-v"), ElementsAre(2, 1));  // stages 1 and 2 are on the second rank
}

TEST(StepModel, TakesAsLongAsTheSlowestOfUnlikeRanks) {
  const StepModel step = deepseek_model();
  for (const char* text : {"p2 m64 1f1b", "p4 m64 1f1b", "p3 m64 1f1b full:1", "p7 m64 1f1b full"}) {
    const ParallelLayout layout = parse_layout(text);
    const Shard shard = step.shard(layout);
    double slowest = 0, fullest = 0;
    for (int rank = 0; rank < layout.pipeline; ++rank) {
      const auto all = static_cast<double>(step.layers_of(layout, rank));
      const auto dense = static_cast<double>(step.dense_layers_of(layout, rank));
      const auto time = [](const LayerShard& layer) {
        return layer.forward + layer.backward_input + layer.backward_weight;
      };
      double busy = (all - dense) * time(shard.block) + dense * time(shard.dense_block);
      if (rank == 0) busy += time(shard.embedding);
      if (rank + 1 == layout.pipeline) busy += time(shard.head);
      slowest = std::max(slowest, busy);
      fullest = std::max(fullest, step.memory(layout, shard, rank).total());
    }
    const StepEstimate estimate = step.estimate(layout, shard);
    if (layout.recompute == Recompute::none) {
      EXPECT_NEAR(estimate.terms.compute, 64 * slowest, 1e-9 * estimate.terms.compute) << text;
    }
    EXPECT_EQ(estimate.memory.total(), fullest) << text;
  }
  EXPECT_THAT(step.refuse(parse_layout("p2 m64 dualpipe")), testing::HasSubstr("leading dense layers"));
}

// Experts over tensor-parallel devices (Liu et al. 2025, arXiv 2504.14960).
TEST(StepModel, FoldsExpertsOverTensorParallelDevices) {
  TrainingJob job{*load_network("mixtral-8x7b").transformer, 64, 4096};
  const StepModel step(job, machine_of(load_cluster("dgx-h100:2")));
  const auto block = [&](const char* text) {
    EXPECT_EQ(step.refuse(parse_layout(text)), "") << text;
    return step.shard(parse_layout(text)).block;
  };
  // Of 8 experts, 8 on a replica's devices: one each, whole, for as many tokens as before.
  const LayerShard cut = block("t4 d2 e2 m32 sp"), whole = block("t4 d2 e8 m32 sp");
  EXPECT_DOUBLE_EQ(whole.expert_parameters, 3.0 * 4096 * 14336);
  EXPECT_DOUBLE_EQ(whole.expert_parameters, cut.expert_parameters);
  EXPECT_EQ(whole.parameters, cut.parameters);
  EXPECT_EQ(whole.tensor_forward, cut.tensor_forward / 2) << "only around the attention";
  const double sent = 4096.0 * 2 * 4096 * 2 / 4;  // bytes of a device's tokens, twice for two experts each
  EXPECT_DOUBLE_EQ(whole.expert_forward, 2 * all_to_all_time(step.machine(), group_of(step.machine(), 1, 8), sent));
  EXPECT_DOUBLE_EQ(cut.expert_forward, 2 * all_to_all_time(step.machine(), group_of(step.machine(), 4, 2), sent));
  EXPECT_NEAR(whole.stash[0], cut.stash[0], 0.001 * cut.stash[0]);
  // Products of the same operations, in larger pieces.
  EXPECT_LT(whole.forward, cut.forward);
  EXPECT_GT(whole.forward, 0.8 * cut.forward);
  // Their gradients have tensor x data / expert replicas.
  const auto groups = [&](const char* text) { return replica_groups(step.machine(), parse_layout(text)); };
  EXPECT_EQ(groups("t4 d4 e8 m16 sp").sharing.members, 8);
  EXPECT_EQ(groups("t4 d4 e8 m16 sp").alike.members, 2);
  EXPECT_EQ(groups("t4 d4 e8 m16 sp").alike.stride, 8);
  EXPECT_EQ(groups("t4 d4 e8 m16 sp").replicas.members, 4);
  EXPECT_EQ(groups("t4 d4 p2 e8 m16 sp order=tpdc").sharing.members, 8);
  EXPECT_EQ(groups("t4 d2 p2 e8 m32 sp order=tpdc").sharing.stride, 2);
  const auto memory = [&](const char* text) {
    const ParallelLayout layout = parse_layout(text);
    return step.memory(layout, step.shard(layout), 0);
  };
  const StageMemory one = memory("t4 d4 e8 m16 sp zero1"), all = memory("t4 d4 e8 m16 sp");
  const double expert = 32 * 3.0 * 4096 * 14336, dense = all.weights / 2 - expert;
  EXPECT_DOUBLE_EQ(one.optimizer_state, 12 * (dense / 4 + expert / 2));
  // Devices that the experts are not spread over see nothing of it.
  EXPECT_EQ(block("t4 d2 m32 sp").expert_forward, 0);
  EXPECT_DOUBLE_EQ(block("t4 d2 m32 sp").expert_parameters, 8 * 3.0 * 4096 * 14336 / 4);

  const auto refusal = [&](const char* text) { return step.refuse(parse_layout(text)); };
  EXPECT_EQ(refusal("t2 d2 e8 m32 sp"), "expert 8 divides neither data x context 2 nor tensor x data x context 4");
  EXPECT_EQ(refusal("t4 d2 e8 m32"),
            "expert 8 does not divide data x context 2: over tensor x data x context experts need sequence "
            "parallelism");
  EXPECT_EQ(refusal("t8 e4 m64 sp"), "expert 4 is not all of the 8 tensor-parallel devices of a single replica");
  EXPECT_EQ(refusal("t8 e8 m64 sp"), "");
}

}  // namespace
}  // namespace stagecraft
