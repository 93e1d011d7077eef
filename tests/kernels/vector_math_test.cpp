#include "kernels/cpu/vector_math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace stagecraft::kernels::cpu {
namespace {

// The version for this machine's best instruction set, as in the operations.
STAGECRAFT_VECTORISED void dispatched_exp(float* y, const float* x, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = fast_exp(x[i]);
}

TEST(FastExp, HasARelativeErrorBelowTwoTenMillionths) {
  std::vector<float> x;
  for (int i = -87 * 4096; i <= 87 * 4096; ++i) x.push_back(static_cast<float>(i) / 4096.0F);
  std::vector<float> y(x.size());
  dispatched_exp(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) / exact - 1.0));
    worst = std::max(worst, std::abs(static_cast<double>(fast_exp(x[i])) / exact - 1.0));
  }
  EXPECT_LT(worst, 2e-7);
}

TEST(FastExp, IsExactAtZero) { EXPECT_EQ(fast_exp(0.0F), 1.0F); }

TEST(FastExp, KeepsNan) { EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN()))); }

TEST(FastSigmoid, StaysNormalForExtremeArguments) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fast_sigmoid(infinity), 1.0F);
  EXPECT_EQ(fast_sigmoid(1e30F), 1.0F);
  EXPECT_EQ(fast_sigmoid(-1e30F), fast_sigmoid(-infinity));
  EXPECT_GT(fast_sigmoid(-infinity), 1e-35F);
  EXPECT_LT(fast_sigmoid(-infinity), 1e-34F);
}

TEST(SoftmaxExp, IsZeroWhereATermIsLostInTheSum) {
  EXPECT_EQ(softmax_exp(-65.0F), 0.0F);
  EXPECT_EQ(softmax_exp(-std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_EQ(softmax_exp(-1e30F), 0.0F);
  EXPECT_GT(softmax_exp(-63.0F), 0.0F);
  EXPECT_TRUE(std::isnan(softmax_exp(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace stagecraft::kernels::cpu
