#include "models/cost/memory.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

TEST(ParameterBytes, OfAdamWInSinglePrecisionAreSixteen) {
  const ParameterBytes bytes = parameter_bytes(DataType::fp32, Optimizer::adamw);
  EXPECT_EQ(bytes.weight, Bytes(4));
  EXPECT_EQ(bytes.gradient, Bytes(4));
  EXPECT_EQ(bytes.optimizer_state, Bytes(8));
  EXPECT_EQ(bytes.touched, Bytes(4 + 4 + 16 + 8)) << "gradient read and zeroed, moments and weights read and written";
  EXPECT_EQ(parameter_bytes(DataType::tf32, Optimizer::adamw).optimizer_state, Bytes(8));
}

TEST(ParameterBytes, OfAdamWInMixedPrecisionAreEighteen) {
  for (const DataType type : {DataType::bf16, DataType::fp16}) {
    const ParameterBytes bytes = parameter_bytes(type, Optimizer::adamw);
    EXPECT_EQ(bytes.weight, Bytes(2));
    EXPECT_EQ(bytes.gradient, Bytes(4));
    EXPECT_EQ(bytes.optimizer_state, Bytes(12));
    EXPECT_EQ(bytes.touched, Bytes(8 + 24 + 2));
  }
}

TEST(ParameterBytes, OfSgdAreFewer) {
  EXPECT_EQ(parameter_bytes(DataType::fp32, Optimizer::sgd).optimizer_state, Bytes(4));
  EXPECT_EQ(parameter_bytes(DataType::fp32, Optimizer::sgd).touched, Bytes(8 + 8 + 8));
  EXPECT_EQ(parameter_bytes(DataType::bf16, Optimizer::sgd).optimizer_state, Bytes(8));
  EXPECT_EQ(parameter_bytes(DataType::fp8, Optimizer::adamw).weight, Bytes(2)) << "cast for each product";
}

// A GPT block with dropout after Korthikanti et al. 2022, equation 1: sbh (34 + 5 a s / h) bytes in 16 bits, of which
// 5 a s / h is the attention core: scores and softmax output of a s^2 elements, and a mask of a s^2 bytes.
Layer gpt_block(double hidden, double heads) {
  Layer block;
  block.name = "block";
  block.stash.elements.per_token = 16 * hidden;
  block.stash.bytes.per_token = 2 * hidden;
  block.stash.elements.per_token_pair = 2 * heads;
  block.stash.bytes.per_token_pair = heads;
  block.attention_stash.elements.per_token_pair = 2 * heads;
  block.attention_stash.bytes.per_token_pair = heads;
  block.input.per_token = hidden;
  return block;
}

Workload gpt3_workload(Recompute recompute, bool fused = false) {
  return {
      .microbatch = 1, .sequence = 2048, .precision = DataType::fp16, .recompute = recompute, .fused_attention = fused};
}

TEST(StashBytes, FollowKorthikantiForEachMode) {
  // GPT-3 175B: h = 12288, a = 96, s = 2048; their equations 1 and 6, and 2sbh of full recomputation.
  const Layer block = gpt_block(12288, 96);
  constexpr double sbh = 2048.0 * 12288;
  EXPECT_EQ(stash_bytes(block, gpt3_workload(Recompute::none)), Bytes(sbh * (34 + 5 * 96.0 * 2048 / 12288)));
  EXPECT_EQ(stash_bytes(block, gpt3_workload(Recompute::selective)), Bytes(sbh * 34));
  EXPECT_EQ(stash_bytes(block, gpt3_workload(Recompute::full)), Bytes(sbh * 2));
}

TEST(StashBytes, SelectiveRecomputationSavesWhatThePaperSays) {
  // Section 5: 70 % for GPT-3 175B; with h = 20480, a = 128 (their 530B model) 65 %.
  const auto saved = [](const Layer& block) {
    return 1 -
           stash_bytes(block, gpt3_workload(Recompute::selective)) / stash_bytes(block, gpt3_workload(Recompute::none));
  };
  EXPECT_NEAR(saved(gpt_block(12288, 96)), 0.70, 0.005);
  EXPECT_NEAR(saved(gpt_block(20480, 128)), 0.65, 0.005);
}

TEST(StashBytes, FusedAttentionKeepsNoSquareAndLeavesSelectiveNothingToDo) {
  const Layer block = gpt_block(64, 4);
  const Bytes linear = Bytes(2048.0 * 64 * 34);
  EXPECT_EQ(stash_bytes(block, gpt3_workload(Recompute::none, true)), linear);
  EXPECT_EQ(stash_bytes(block, gpt3_workload(Recompute::selective, true)), linear);
  EXPECT_FALSE(attention_recomputed(block, gpt3_workload(Recompute::selective, true)));
}

TEST(StashBytes, ALayerWithoutAnInputIsNeverRecomputed) {
  Layer head = gpt_block(64, 4);
  head.input = {};
  EXPECT_FALSE(recomputed_fully(head, gpt3_workload(Recompute::full)));
  EXPECT_EQ(stash_bytes(head, gpt3_workload(Recompute::full)), stash_bytes(head, gpt3_workload(Recompute::none)));
}

TEST(WorkspaceBytes, HoldWhatRecomputationBringsBackAndTwoGradients) {
  const Layer block = gpt_block(64, 4);
  const Bytes gradients = Bytes(2 * 2.0 * 2048 * 64);
  const Bytes whole = stash_bytes(block, gpt3_workload(Recompute::none));
  EXPECT_EQ(workspace_bytes(block, gpt3_workload(Recompute::none)), gradients);
  EXPECT_EQ(workspace_bytes(block, gpt3_workload(Recompute::full)),
            whole - stash_bytes(block, gpt3_workload(Recompute::full)) + gradients);
  EXPECT_EQ(workspace_bytes(block, gpt3_workload(Recompute::selective)), Bytes(5.0 * 4 * 2048 * 2048) + gradients);
}

}  // namespace
}  // namespace stagecraft
