#include "runtime/tensor_shard.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/runtime/plans.hpp"

namespace stagecraft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Parameter& find(const std::vector<Parameter>& parameters, std::string_view ending) {
  return *std::find_if(parameters.begin(), parameters.end(), [&](const auto& p) { return p.name.ends_with(ending); });
}

// What a shard takes of 0, 1, 2, ...
std::vector<float> taken(const Parameter& parameter, const TensorShard& shard) {
  std::vector<float> whole(static_cast<std::size_t>(parameter.count()));
  std::iota(whole.begin(), whole.end(), 0.0F);
  const TensorSlice slice(parameter, shard);
  std::vector<float> held(static_cast<std::size_t>(slice.count()));
  slice.take(whole, held);
  return held;
}

TEST(ShardRange, RoundsTheSharesUpSoThatTheLastIsTheSmallest) {
  EXPECT_EQ(shard_range(50257, {2, 0}).size(), 25129);
  EXPECT_EQ(shard_range(50257, {2, 1}).size(), 25128);
  EXPECT_EQ(shard_range(50257, {2, 1}).first, 25129);
  EXPECT_EQ(shard_range(5, {4, 3}).size(), 0);
}

// Two query heads of size 4 and one head each of keys and values a shard, one column.
TEST(TensorSlice, TakesWholeHeadsOfQueriesKeysAndValues) {
  Transformer t = tiny_llama();
  t.hidden = 1;
  const auto parameters = layer_parameters(t, 1);
  EXPECT_THAT(taken(find(parameters, "qkv.weight"), {2, 1}),
              ElementsAre(8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
}

TEST(TensorSlice, TakesTheSameRowsOfGateAndUp) {
  Transformer t = tiny_llama();
  t.hidden = 1;
  t.ffn = 4;
  EXPECT_THAT(taken(find(layer_parameters(t, 1), "mlp.up.weight"), {2, 0}), ElementsAre(0, 1, 4, 5));
}

TEST(TensorSlice, TakesColumnsOfWhatGoesBackIntoTheResidualStream) {
  Transformer t = tiny_gpt();
  t.hidden = 2;
  t.ffn = 4;
  const auto parameters = layer_parameters(t, 1);
  EXPECT_THAT(taken(find(parameters, "mlp.down.weight"), {2, 1}), ElementsAre(2, 3, 6, 7));
  EXPECT_THAT(taken(find(parameters, "mlp.down.bias"), {2, 1}), ElementsAre(0, 1));
}

TEST(TensorSlice, PutsTogetherWhatTheShardsTook) {
  for (const Transformer& t : {tiny_gpt(), tiny_gpt(true), tiny_llama(), tiny_llama(true)}) {
    for (const Parameter& parameter : network_parameters(t)) {
      std::vector<float> whole(static_cast<std::size_t>(parameter.count()), -1.0F), expected(whole.size());
      std::iota(expected.begin(), expected.end(), 0.0F);
      for (int shard = 0; shard < 2; ++shard) {
        TensorSlice(parameter, {2, shard}).put(taken(parameter, {2, shard}), whole);
      }
      EXPECT_EQ(whole, expected) << parameter.name;
    }
  }
}

TEST(TransformerOfAShard, HasTheTensorsThatTheSlicesFill) {
  Transformer odd = tiny_gpt();
  odd.vocabulary = 33;
  for (const Transformer& t : {odd, tiny_llama(true)}) {
    for (int shard = 0; shard < 2; ++shard) {
      const auto whole = network_parameters(t), held = network_parameters(transformer_of(t, {2, shard}));
      ASSERT_EQ(whole.size(), held.size());
      for (std::size_t i = 0; i < whole.size(); ++i) {
        EXPECT_EQ(whole[i].name, held[i].name);
        EXPECT_EQ(TensorSlice(whole[i], {2, shard}).count(), held[i].count()) << whole[i].name;
      }
    }
  }
}

TEST(TensorParallelFault, NamesWhatCannotBeShared) {
  EXPECT_EQ(tensor_parallel_fault(tiny_llama(), 2), "");
  EXPECT_EQ(tensor_parallel_fault(tiny_llama(), 4), "kv_heads: expected a multiple of 4 (tensor), got 2");
  EXPECT_THAT(tensor_parallel_fault(tiny_llama(), 3), HasSubstr("heads: expected a multiple of 3"));
  Transformer t = tiny_gpt();
  t.head = HeadKind::regression;
  EXPECT_THAT(tensor_parallel_fault(t, 2), HasSubstr("regression head"));
  t = tiny_gpt();
  t.heads = t.kv_heads = 4;
  t.vocabulary = 5;
  EXPECT_THAT(tensor_parallel_fault(t, 4), HasSubstr("vocabulary"));
}

}  // namespace
}  // namespace stagecraft
