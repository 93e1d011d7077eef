#include "runtime/cuda/short_network.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "tests/runtime/plans.hpp"

namespace stagecraft::cuda {
namespace {

// On CPU cores, where the same threads work on the same steps, but no device says when it did an action.
std::vector<Plan> plans(int devices) {
  Plan whole = make_plan(tiny_gpt(), {.cuts = {1, 2, 3}});
  std::vector<Plan> plans;
  for (int device = 0; device < devices; ++device) plans.push_back(short_plan(whole, DeviceId{device}));
  return plans;
}

TrainingOptions on_cores() {
  TrainingOptions options;
  options.oversubscribe = true;
  return options;
}

TEST(ShortNetwork, RestsAFifthAndTwoFifthsOfAStepAfterEachStep) {
  for (const int devices : {1, 3}) {
    const ShortRuns runs = run_short(plans(devices), 1, devices, on_cores(), Seconds(0.2), nullptr);
    EXPECT_EQ(runs.levels.size(), static_cast<std::size_t>(devices));
    ASSERT_EQ(runs.rested.size(), 2U);
    for (const auto& [rested, rest] : {std::pair(runs.rested[0], 0.2), std::pair(runs.rested[1], 0.4)}) {
      EXPECT_EQ(rested.rest, rest);
      EXPECT_GT(rested.busy, Seconds(0)) << devices;
      // A sleep may take longer than it was told to.
      EXPECT_GT(rested.resting, rested.busy * (0.99 * rest)) << devices;
    }
  }
}

TEST(ShortNetwork, SendsAShareOfTheMicrobatchesThroughItsEnds) {
  constexpr int count = 6, steps = 60;
  EXPECT_EQ(with_ends(1.0 / 6, 1, count), (std::vector<bool>{false, true, false, false, false, false}));
  EXPECT_EQ(with_ends(0.5, 2, count), (std::vector<bool>{true, false, true, false, true, false}));
  EXPECT_EQ(with_ends(1, 3, count), std::vector<bool>(count, true));
  for (const double share : {1.0 / 6, 0.3, 0.5, 0.8, 1.0}) {
    std::vector<int> times(count, 0);
    int all = 0;
    for (int step = 1; step <= steps; ++step) {
      const std::vector<bool> ends = with_ends(share, step, count);
      const auto taken = static_cast<int>(std::count(ends.begin(), ends.end(), true));
      EXPECT_GE(taken, 1) << share;
      for (int m = 0; m < count; ++m) times[static_cast<std::size_t>(m)] += ends[static_cast<std::size_t>(m)] ? 1 : 0;
      all += taken;
    }
    EXPECT_NEAR(all, share * count * steps, 1) << share;
    const auto [least, most] = std::minmax_element(times.begin(), times.end());
    EXPECT_GE(*least, share * steps * 0.5) << share << ": none is left out";
    EXPECT_LE(*most, share * steps * 1.5 + 1) << share << ": none is preferred";
  }
}

TEST(ShortNetwork, EndsWhenItIsStopped) {
  std::atomic<bool> stop{false};
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop = true;
  });
  EXPECT_NO_THROW(run_short(plans(3), 1, 3, on_cores(), Seconds(1e6), &stop));
  stopper.join();
}

}  // namespace
}  // namespace stagecraft::cuda
