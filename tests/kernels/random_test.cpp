#include "kernels/cpu/random.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace stagecraft::kernels::cpu {
namespace {

constexpr std::int64_t count = 100000;

std::vector<float> normal(RandomStream stream, std::int64_t first = 0, std::int64_t n = count) {
  std::vector<float> values(static_cast<std::size_t>(n));
  fill_normal(values.data(), n, stream, first, 2.0F, 3.0F);
  return values;
}

TEST(Random, GivesAPartTheValuesItHasInTheWhole) {
  const RandomStream stream{.seed = 7, .tensor = 3};
  const auto whole = normal(stream);
  const auto part = normal(stream, 1234, 500);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 1234));
}

TEST(Random, DependsOnSeedAndTensor) {
  const auto values = normal({.seed = 1, .tensor = 1});
  EXPECT_NE(values, normal({.seed = 2, .tensor = 1}));
  EXPECT_NE(values, normal({.seed = 1, .tensor = 2}));
  EXPECT_NE(normal({.seed = 1, .tensor = 2}), normal({.seed = 2, .tensor = 1}));
}

TEST(Random, HasTheMomentsOfTheNormalDistribution) {
  double sum = 0.0;
  double squares = 0.0;
  double fourths = 0.0;
  for (const float value : normal({.seed = 1, .tensor = 1})) {
    const double z = (static_cast<double>(value) - 2.0) / 3.0;
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
  }
  // Five standard errors of 100,000 samples.
  EXPECT_NEAR(sum / count, 0.0, 5.0 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1.0, 5.0 * std::sqrt(2.0 / count));
  EXPECT_NEAR(fourths / count, 3.0, 5.0 * std::sqrt(96.0 / count));
}

TEST(Random, HasNeighboursThatDoNotCorrelate) {
  const auto values = normal({.seed = 1, .tensor = 1});
  double product = 0.0;
  for (std::size_t i = 1; i < values.size(); ++i) {
    product += (static_cast<double>(values[i - 1]) - 2.0) * (static_cast<double>(values[i]) - 2.0) / 9.0;
  }
  EXPECT_NEAR(product / count, 0.0, 5.0 / std::sqrt(count));
}

TEST(Random, FillsAnIntervalUniformly) {
  std::vector<float> values(static_cast<std::size_t>(count));
  fill_uniform(values.data(), count, {.seed = 1, .tensor = 1}, 0, -1.0F, 3.0F);
  std::vector<int> histogram(8);
  for (const float value : values) {
    ASSERT_GE(value, -1.0F);
    ASSERT_LT(value, 3.0F);
    ++histogram[static_cast<std::size_t>((value + 1.0F) * 2.0F)];
  }
  // Five standard deviations of a binomial count.
  for (const int bin : histogram) EXPECT_NEAR(bin, count / 8.0, 5.0 * std::sqrt(count / 8.0));
}

}  // namespace
}  // namespace stagecraft::kernels::cpu
