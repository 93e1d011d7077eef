#include "kernels/harness/harness.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stagecraft::kernels {
namespace {

using testing::HasSubstr;

// y = 2 x over 8 numbers, in a buffer of 10 for y: the last two must not be touched.
Case doubling(std::function<void(const Arguments<float>&)> candidate) {
  return {.op = "double",
          .name = "double",
          .tensors = {{"y", Role::output, 10}, {"x", Role::input, 8}},
          .candidate = std::move(candidate),
          .reference = [](const Arguments<double>& d) {
            for (int i = 0; i < 8; ++i) d[0][i] = 2.0 * d[1][i];
          }};
}

void double_first(const Arguments<float>& f, int count) {
  for (int i = 0; i < count; ++i) f[0][i] = 2.0F * f[1][i];
}

TEST(Check, PassesARightOperation) {
  const Outcome outcome = check(doubling([](const Arguments<float>& f) { double_first(f, 8); }), 1);
  EXPECT_TRUE(outcome.passed);
  EXPECT_EQ(outcome.error, 0.0);
  EXPECT_EQ(outcome.message, "");
}

TEST(Check, FindsAnElementThatWasNotWritten) {
  const Outcome outcome = check(doubling([](const Arguments<float>& f) { double_first(f, 7); }), 1);
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.message, HasSubstr("y[7] is nan"));
}

TEST(Check, FindsAnElementThatMustNotBeWritten) {
  const Outcome outcome = check(doubling([](const Arguments<float>& f) {
                                  double_first(f, 8);
                                  f[0][9] = 0.0F;
                                }),
                                1);
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.message, HasSubstr("y[9] is 0"));
}

TEST(Check, FindsAChangedInput) {
  const Outcome outcome = check(doubling([](const Arguments<float>& f) {
                                  double_first(f, 8);
                                  f[1][3] += 1.0F;
                                }),
                                1);
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.message, HasSubstr("x[3]"));
}

TEST(Check, FindsASmallError) {
  const Outcome outcome = check(doubling([](const Arguments<float>& f) {
                                  double_first(f, 8);
                                  f[0][5] *= 1.0005F;
                                }),
                                1);
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.message, HasSubstr("y[5]"));
}

// y = x^2, with dx = factor * 2 x dy.
GradientCase squaring(float factor) {
  return {.op = "square",
          .name = "square",
          .inputs = {{"x", Role::input, 6}},
          .outputs = 6,
          .forward =
              [](const Arguments<double>& d, double* y) {
                for (int i = 0; i < 6; ++i) y[i] = d[0][i] * d[0][i];
              },
          .gradient =
              [=](const Arguments<float>& f, const float* dy, const Arguments<float>& d) {
                for (int i = 0; i < 6; ++i) d[0][i] = factor * 2.0F * f[0][i] * dy[i];
              }};
}

TEST(CheckGradient, PassesARightGradient) { EXPECT_TRUE(check_gradient(squaring(1.0F), 1).passed); }

TEST(CheckGradient, FindsAWrongGradient) {
  const Outcome outcome = check_gradient(squaring(1.001F), 1);
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.message, HasSubstr("d_x["));
}

}  // namespace
}  // namespace stagecraft::kernels
