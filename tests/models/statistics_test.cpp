#include "models/statistics.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

TEST(Statistics, TheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo) {
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({7}), 7);
}

TEST(Statistics, PercentilesLieBetweenTheNearestTwoAsInNumpy) {
  EXPECT_EQ(percentile({50, 10, 40, 20, 30}, 0), 10);
  EXPECT_EQ(percentile({50, 10, 40, 20, 30}, 1), 50);
  EXPECT_EQ(percentile({50, 10, 40, 20, 30}, 0.125), 15);
  EXPECT_EQ(percentile({2, 2, 2}, 0.9), 2);
}

}  // namespace
}  // namespace stagecraft
