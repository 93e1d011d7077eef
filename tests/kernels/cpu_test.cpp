// Properties of the CPU operations that comparing with the reference does not show: equal bits, worked examples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/denormals.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/embedding.hpp"
#include "kernels/cpu/gelu.hpp"
#include "kernels/cpu/layer_norm.hpp"
#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/mean_squared_error.hpp"
#include "kernels/cpu/optimizer.hpp"
#include "kernels/cpu/random.hpp"
#include "kernels/cpu/rope.hpp"
#include "tests/kernels/random_floats.hpp"

namespace stagecraft::kernels::cpu {
namespace {

using testing::ElementsAre;

TEST(Linear, MultipliesByTheTransposedWeight) {
  const Floats x = {1, 2, 3, 4, 5, 6};   // (2, 3)
  const Floats w = {1, 0, 2, 0, -1, 1};  // (2, 3)
  const Floats bias = {10, 20};
  Floats y(4);
  linear_forward(y.data(), x.data(), w.data(), bias.data(), 2, 3, 2);
  EXPECT_THAT(y, ElementsAre(17, 21, 26, 21));
}

TEST(Linear, AccumulatesWeightGradientsOfMicrobatches) {
  const Floats x = {1, 2, 3, 4};    // (2, 2)
  const Floats dy = {1, -1, 2, 3};  // (2, 2)
  Floats dw(4);
  Floats d_bias(2);
  linear_weight_gradient(dw.data(), d_bias.data(), dy.data(), x.data(), 1, 2, 2);
  linear_weight_gradient(dw.data(), d_bias.data(), dy.data() + 2, x.data() + 2, 1, 2, 2);
  EXPECT_THAT(dw, ElementsAre(7, 10, 8, 10));
  EXPECT_THAT(d_bias, ElementsAre(3, 2));
}

TEST(Linear, HasTheSameBitsOnEveryThread) {
  set_blas_threads_per_caller(1);
  constexpr std::int64_t rows = 130;
  constexpr std::int64_t inputs = 97;
  constexpr std::int64_t outputs = 203;
  const Floats x = random_floats(rows * inputs, 0);
  const Floats w = random_floats(outputs * inputs, 1);
  std::vector<Floats> results(3, Floats(static_cast<std::size_t>(rows * outputs)));
  const auto compute = [&](Floats& y) { linear_forward(y.data(), x.data(), w.data(), nullptr, rows, inputs, outputs); };
  compute(results[0]);
  std::thread first(compute, std::ref(results[1]));
  std::thread second(compute, std::ref(results[2]));
  first.join();
  second.join();
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Embedding, AddsTheGradientsOfARepeatedToken) {
  const std::vector<std::int32_t> tokens = {1, 0, 1};
  const Floats dy = {1, 2, 3, 4, 5, 6};  // (3, 2)
  Floats d_tokens = {10, 10, 10, 10};    // (2, 2)
  Floats d_positions(6);
  embedding_weight_gradient(d_tokens.data(), d_positions.data(), tokens.data(), dy.data(), 1, 3, 2);
  EXPECT_THAT(d_tokens, ElementsAre(13, 14, 16, 18));
  EXPECT_EQ(d_positions, dy);
}

TEST(Embedding, SplitOverAVocabularyAddsUpToTheWhole) {
  constexpr std::int64_t vocabulary = 7, channels = 3, rows = 6;
  const std::vector<std::int32_t> tokens = {0, 6, 3, 4, 2, 3};
  const Floats table = random_floats(vocabulary * channels, 0), positions = random_floats(rows * channels, 1);
  const Floats dy = random_floats(rows * channels, 2);
  Floats whole(rows * channels), d_whole(vocabulary * channels), d_split(vocabulary * channels), sum(rows * channels);
  embedding_forward(whole.data(), tokens.data(), table.data(), positions.data(), 1, rows, channels);
  embedding_weight_gradient(d_whole.data(), nullptr, tokens.data(), dy.data(), 1, rows, channels);
  for (const stagecraft::kernels::TokenRange held : {stagecraft::kernels::TokenRange{0, 4}, {4, 3}}) {
    Floats part(rows * channels, 99.0F);
    embedding_forward(part.data(), tokens.data(), table.data() + held.first * channels,
                      held.first == 0 ? positions.data() : nullptr, 1, rows, channels, held);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
    embedding_weight_gradient(d_split.data() + held.first * channels, nullptr, tokens.data(), dy.data(), 1, rows,
                              channels, held);
  }
  EXPECT_EQ(sum, whole);
  EXPECT_EQ(d_split, d_whole);
}

TEST(CrossEntropy, SplitOverAVocabularyIsThatOfTheWhole) {
  constexpr std::int64_t rows = 5, vocabulary = 11;
  const std::vector<std::int32_t> targets = {0, 10, 3, 4, 7};
  Floats whole = random_floats(rows * vocabulary, 0);
  for (float& logit : whole) logit *= 20.0F;
  for (const std::vector<std::int64_t>& widths : {std::vector<std::int64_t>{11}, {6, 5}, {3, 3, 3, 2}}) {
    const auto shards = static_cast<std::int64_t>(widths.size());
    std::vector<Floats> parts;
    Floats statistics(static_cast<std::size_t>(shards * cross_entropy_statistics * rows));
    std::int64_t first = 0;
    for (std::int64_t s = 0; s < shards; ++s) {
      const std::int64_t width = widths[static_cast<std::size_t>(s)];
      Floats& part = parts.emplace_back();
      for (std::int64_t n = 0; n < rows; ++n) {
        const auto row = whole.begin() + n * vocabulary + first;
        part.insert(part.end(), row, row + width);
      }
      cross_entropy_shard_statistics(statistics.data() + s * cross_entropy_statistics * rows, part.data(),
                                     targets.data(), rows, width, first);
      first += width;
    }
    Floats expected = whole;
    const double loss = cross_entropy_loss_and_gradient(expected.data(), targets.data(), rows, vocabulary, 0.5F);
    first = 0;
    for (std::int64_t s = 0; s < shards; ++s) {
      const std::int64_t width = widths[static_cast<std::size_t>(s)];
      Floats& part = parts[static_cast<std::size_t>(s)];
      EXPECT_NEAR(cross_entropy_shard_loss_and_gradient(part.data(), statistics.data(), targets.data(), shards, s, rows,
                                                        width, first, 0.5F),
                  loss, 1e-6 * loss);
      for (std::int64_t n = 0; n < rows; ++n) {
        for (std::int64_t i = 0; i < width; ++i) {
          EXPECT_NEAR(part[static_cast<std::size_t>(n * width + i)],
                      expected[static_cast<std::size_t>(n * vocabulary + first + i)], 1e-6);
        }
      }
      first += width;
    }
  }
}

TEST(LayerNorm, MayOverwriteTheGradientItReads) {
  constexpr std::int64_t rows = 3;
  constexpr std::int64_t channels = 37;
  const Floats x = random_floats(rows * channels, 0);
  const Floats gamma = random_floats(channels, 1);
  const Floats mean = random_floats(rows, 2);
  const Floats rstd = random_floats(rows, 3);
  Floats dy = random_floats(rows * channels, 4);
  Floats dx(dy.size());
  layer_norm_input_gradient(dx.data(), dy.data(), x.data(), gamma.data(), mean.data(), rstd.data(), rows, channels);
  layer_norm_input_gradient(dy.data(), dy.data(), x.data(), gamma.data(), mean.data(), rstd.data(), rows, channels);
  EXPECT_EQ(dy, dx);
}

TEST(Gelu, MayWorkInPlace) {
  Floats x = random_floats(1003, 0);
  Floats y(x.size());
  gelu_forward(y.data(), x.data(), 1003);
  gelu_forward(x.data(), x.data(), 1003);
  EXPECT_EQ(x, y);
}

TEST(Rope, LeavesPositionZeroAndTurnsPositionOneByItsAngle) {
  Floats table(static_cast<std::size_t>(rope_table_floats(2, 4)));
  rope_table(table.data(), 2, 4, 100.0);
  Floats x = {1, 2, 3, 4, 1, 0, 0, 1};  // two positions of one head of size 4: pairs (0, 2) and (1, 3)
  rope_forward(x.data(), table.data(), 1, 2, 1, 4, 4);
  EXPECT_THAT(Floats(x.begin(), x.begin() + 4), ElementsAre(1, 2, 3, 4));
  EXPECT_FLOAT_EQ(x[4], std::cos(1.0F));
  EXPECT_FLOAT_EQ(x[5], -std::sin(0.1F));  // theta^(-2/4) = 0.1
  EXPECT_FLOAT_EQ(x[6], std::sin(1.0F));
  EXPECT_FLOAT_EQ(x[7], std::cos(0.1F));
}

TEST(CrossEntropy, OfEqualLogitsIsTheLogarithmOfTheVocabulary) {
  Floats logits(512, 3.0F);
  const std::vector<std::int32_t> targets = {0, 255};
  EXPECT_DOUBLE_EQ(cross_entropy_loss(logits.data(), targets.data(), 2, 256), std::log(256.0));
  EXPECT_DOUBLE_EQ(cross_entropy_loss_and_gradient(logits.data(), targets.data(), 2, 256, 2.0F), std::log(256.0));
  EXPECT_EQ(logits[0], 2.0F / 256.0F - 2.0F);
  EXPECT_EQ(logits[1], 2.0F / 256.0F);
}

TEST(CrossEntropy, ShowsThatTrainingDiverged) {
  Floats logits(256, 0.0F);
  logits[17] = std::numeric_limits<float>::quiet_NaN();
  const std::int32_t target = 3;
  EXPECT_TRUE(std::isnan(cross_entropy_loss(logits.data(), &target, 1, 256)));
  EXPECT_TRUE(std::isnan(cross_entropy_loss_and_gradient(logits.data(), &target, 1, 256, 1.0F)));
}

TEST(MeanSquaredError, AveragesOverRowsAndOutputs) {
  Floats predictions = {1, 2, 3, 4};
  const Floats targets = {0, 2, 5, 4};
  EXPECT_EQ(mean_squared_error_loss(predictions.data(), targets.data(), 2, 2), 1.25);
  EXPECT_EQ(mean_squared_error_loss_and_gradient(predictions.data(), targets.data(), 2, 2, 0.5F), 1.25);
  EXPECT_THAT(predictions, ElementsAre(0.5F, 0, -1, 0));
}

TEST(AdamW, GivesTheSameBitsWhereverTheSpanIsCut) {
  constexpr std::int64_t count = 1001;
  const AdamW options{.learning_rate = 1e-3F, .weight_decay = 0.1F};
  const Floats dw = random_floats(count, 0);
  const auto state = [] { return std::vector{random_floats(count, 1), Floats(count, 0.25F), Floats(count, 0.5F)}; };
  auto whole = state();
  adamw_step(whole[0].data(), whole[1].data(), whole[2].data(), dw.data(), count, options, 3, 0.7F);
  for (const std::int64_t cut : {1, 7, 500, 1000}) {
    auto parts = state();
    adamw_step(parts[0].data(), parts[1].data(), parts[2].data(), dw.data(), cut, options, 3, 0.7F);
    adamw_step(parts[0].data() + cut, parts[1].data() + cut, parts[2].data() + cut, dw.data() + cut, count - cut,
               options, 3, 0.7F);
    EXPECT_EQ(parts, whole) << "cut at " << cut;
  }
}

TEST(AdamW, MovesByTheLearningRateInItsFirstStep) {
  // With m = v = 0 the corrected moments are g and g^2: the step is learning_rate * sign(g).
  Floats w = {1.0F, 1.0F};
  Floats m = {0.0F, 0.0F};
  Floats v = {0.0F, 0.0F};
  const Floats dw = {4.0F, -0.5F};
  adamw_step(w.data(), m.data(), v.data(), dw.data(), 2, {.learning_rate = 0.125F}, 1, 1.0F);
  EXPECT_THAT(w, testing::Pointwise(testing::FloatEq(), {0.875F, 1.125F}));
}

TEST(Denormals, AreZeroOnAThreadThatFlushesThem) {
  const auto halved = [](bool flush) {
    Floats x(17, std::numeric_limits<float>::min());
    std::thread([&] {
      if (flush) flush_denormals_on_this_thread();
      scale(x.data(), 0.5F, 17);
    }).join();
    return x[0];
  };
  EXPECT_GT(halved(false), 0.0F);
  EXPECT_EQ(halved(true), 0.0F);
}

TEST(SquaredNorm, LosesNoSmallTermsBesideALargeOne) {
  Floats x(10001, 0x1p-14F);
  x[0] = 1.0F;
  EXPECT_EQ(squared_norm(x.data(), 10001), 1.0 + 10000.0 * 0x1p-28);
}

}  // namespace
}  // namespace stagecraft::kernels::cpu
