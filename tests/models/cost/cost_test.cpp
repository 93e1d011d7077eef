#include "models/cost/cost.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

TEST(StageCost, SumsLayersAndTakesTheLargestWorkspace) {
  const LayerCost first{Seconds(1), Seconds(2), Seconds(3), Seconds(4), Seconds(0.5), Seconds(5),
                        Bytes(10),  Bytes(20),  Bytes(30),  Bytes(40),  Bytes(60),    Bytes(50)};
  const LayerCost second{Seconds(10), Seconds(20), Seconds(30), Seconds(40), Seconds(0.25), Seconds(50),
                         Bytes(1),    Bytes(2),    Bytes(3),    Bytes(4),    Bytes(6),      Bytes(5)};
  const StageCost stage = stage_cost(std::vector{first, second}, Bytes(7), Bytes(8));
  EXPECT_EQ(stage.forward, Seconds(11));
  EXPECT_EQ(stage.backward_input, Seconds(55)) << "recomputation is part of it";
  EXPECT_EQ(stage.backward_weight, Seconds(44));
  EXPECT_EQ(stage.backward(), Seconds(55 + 44 - 0.75)) << "as one action";
  EXPECT_EQ(stage.split, Bytes(66));
  EXPECT_EQ(stage.optimizer, Seconds(55));
  EXPECT_EQ(stage.weights, Bytes(11));
  EXPECT_EQ(stage.gradients, Bytes(22));
  EXPECT_EQ(stage.optimizer_state, Bytes(33));
  EXPECT_EQ(stage.stash, Bytes(44));
  EXPECT_EQ(stage.workspace, Bytes(50));
  EXPECT_EQ(stage.boundary, Bytes(7));
  EXPECT_EQ(stage.tied, Bytes(8));
  EXPECT_EQ(stage.peak_memory(3), Bytes(11 + 22 + 33 + 50 + 3 * 44));
}

TEST(StageCost, AStageOfNothingCostsNothing) { EXPECT_EQ(stage_cost({}, Bytes(0), Bytes(0)), StageCost{}); }

TEST(ElementSize, FollowsThePrecision) {
  EXPECT_EQ(element_size(DataType::fp32), Bytes(4));
  EXPECT_EQ(element_size(DataType::tf32), Bytes(4));
  EXPECT_EQ(element_size(DataType::bf16), Bytes(2));
  EXPECT_EQ(element_size(DataType::fp16), Bytes(2));
  EXPECT_EQ(element_size(DataType::fp8), Bytes(1));
}

TEST(Names, AreThoseOfTheirTables) {
  for (const auto& [text, value] : data_type_names()) EXPECT_EQ(name(value), text);
  for (const auto& [text, value] : recompute_names()) EXPECT_EQ(name(value), text);
  for (const auto& [text, value] : optimizer_names()) EXPECT_EQ(name(value), text);
  EXPECT_EQ(name(DataType::bf16), "bf16");
  EXPECT_EQ(name(Recompute::full), "full");
  EXPECT_EQ(name(Optimizer::sgd), "sgd");
}

}  // namespace
}  // namespace stagecraft
