#include "models/cost/clock.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

// The mean of d mean / dt = (load - mean) / lag over the busy part, step by step from rest until it repeats.
double by_steps(Seconds busy, Seconds rest) {
  constexpr int steps = 20'000;
  const Seconds period = busy + rest;
  const double dt = period / clock_lag / steps;
  double mean = 0, sum = 0;
  int counted = 0;
  for (double passed = 0; passed < 40; passed += period / clock_lag) {
    sum = 0, counted = 0;
    for (int i = 0; i < steps; ++i) {
      const bool computes = (i + 0.5) * period.value() / steps < busy.value();
      const double before = mean;
      mean += ((computes ? 1 : 0) - mean) * -std::expm1(-dt);
      if (computes) sum += (before + mean) / 2, ++counted;
    }
  }
  return sum / counted;
}

TEST(Clock, LoadBetweenRestsIsTheMeanWhileItComputes) {
  for (const double busy : {0.001, 0.02, 0.1, 0.5}) {
    for (const double rest : {0.2, 0.8, 3.0}) {
      const Seconds b(busy), r(rest * busy);
      EXPECT_NEAR(load_between_rests(b, r), by_steps(b, r), 1e-3) << busy << " " << rest;
    }
  }
}

TEST(Clock, LoadBetweenRestsIsTheShareOfTimeWhereTheyAreShortAndAllWhereThereAreNone) {
  EXPECT_NEAR(load_between_rests(Seconds(1e-6), Seconds(3e-6)), 0.25, 1e-4);
  EXPECT_DOUBLE_EQ(load_between_rests(Seconds(0.05), Seconds(0)), 1);
  EXPECT_NEAR(load_between_rests(clock_lag * 1e3, clock_lag * 1e3), 0.999, 1e-6);
}

}  // namespace
}  // namespace stagecraft
