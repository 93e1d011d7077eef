#include "kernels/cpu/attention.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/cpu/random.hpp"
#include "tests/kernels/random_floats.hpp"

namespace stagecraft::kernels::cpu {
namespace {

using testing::ElementsAreArray;

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// More than two tiles of queries, grouped heads, a short last tile.
constexpr AttentionShape shape{
    .batch = 2, .time = 150, .heads = 4, .kv_heads = 2, .head_size = 8, .q_stride = 32, .kv_stride = 16};
constexpr std::int64_t rows = shape.batch * shape.time;

Floats poisoned(std::int64_t count) { return Floats(static_cast<std::size_t>(count), nan); }

struct Inputs {
  Floats q = random_floats(rows * shape.q_stride, 0);
  Floats k = random_floats(rows * shape.kv_stride, 1);
  Floats v = random_floats(rows * shape.kv_stride, 2);
  Floats d_o = random_floats(rows * shape.q_stride, 3);
};

Floats forward(const Inputs& in, float* probabilities) {
  Floats o = poisoned(rows * shape.q_stride);
  Floats workspace = poisoned(attention_workspace_floats(shape));
  attention_forward(o.data(), probabilities, in.q.data(), in.k.data(), in.v.data(), shape, workspace.data());
  return o;
}

struct Gradients {
  Floats dq = poisoned(rows * shape.q_stride);
  Floats dk = poisoned(rows * shape.kv_stride);
  Floats dv = poisoned(rows * shape.kv_stride);
};

Gradients backward(const Inputs& in, const float* probabilities) {
  Gradients out;
  Floats workspace = poisoned(attention_workspace_floats(shape));
  attention_input_gradient(out.dq.data(), out.dk.data(), out.dv.data(), in.d_o.data(), probabilities, in.q.data(),
                           in.k.data(), in.v.data(), shape, workspace.data());
  return out;
}

TEST(Attention, HasTheSameBitsWithStoredAndRecomputedProbabilities) {
  const Inputs in;
  Floats probabilities = poisoned(attention_probability_floats(shape));
  EXPECT_THAT(forward(in, nullptr), ElementsAreArray(forward(in, probabilities.data())));
  const Gradients stored = backward(in, probabilities.data());
  const Gradients recomputed = backward(in, nullptr);
  EXPECT_EQ(stored.dq, recomputed.dq);
  EXPECT_EQ(stored.dk, recomputed.dk);
  EXPECT_EQ(stored.dv, recomputed.dv);
}

TEST(Attention, DoesNotSeeLaterTokens) {
  Inputs in;
  const Floats before = forward(in, nullptr);
  constexpr std::int64_t changed = 100;  // of the second sequence
  for (std::int64_t t = changed; t < shape.time; ++t) {
    for (std::int64_t c = 0; c < shape.kv_stride; ++c) {
      in.k[static_cast<std::size_t>((shape.time + t) * shape.kv_stride + c)] += 1.0F;
      in.v[static_cast<std::size_t>((shape.time + t) * shape.kv_stride + c)] += 1.0F;
    }
  }
  const Floats after = forward(in, nullptr);
  const auto first_changed = static_cast<std::ptrdiff_t>((shape.time + changed) * shape.q_stride);
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + first_changed, after.begin()));
  EXPECT_NE(before[static_cast<std::size_t>(first_changed)], after[static_cast<std::size_t>(first_changed)]);
}

TEST(Attention, AveragesEqualKeys) {
  // Scores are all zero, so row t is the mean of the first t + 1 values: 0, 1/2, 1, 3/2.
  constexpr AttentionShape one{
      .batch = 1, .time = 4, .heads = 1, .kv_heads = 1, .head_size = 1, .q_stride = 1, .kv_stride = 1};
  const Floats q = {5, 6, 7, 8};
  const Floats k = {0, 0, 0, 0};
  const Floats v = {0, 1, 2, 3};
  Floats o = poisoned(4);
  Floats probabilities = poisoned(16);
  Floats workspace = poisoned(attention_workspace_floats(one));
  attention_forward(o.data(), probabilities.data(), q.data(), k.data(), v.data(), one, workspace.data());
  EXPECT_THAT(o, testing::Pointwise(testing::FloatEq(), {0.0F, 0.5F, 1.0F, 1.5F}));
  EXPECT_THAT(Floats(probabilities.begin(), probabilities.begin() + 8), ElementsAreArray({1.0F, 0.0F, 0.0F, 0.0F,  //
                                                                                          0.5F, 0.5F, 0.0F, 0.0F}));
}

}  // namespace
}  // namespace stagecraft::kernels::cpu
