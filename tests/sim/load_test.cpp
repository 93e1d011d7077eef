#include "sim/load.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/cost/clock.hpp"
#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

using test::make_plan;
using test::stage_cost;
using testing::AllOf;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::Field;

// Two stages, forward 1 and backward 2 units each: three of four slots computed with three micro-batches, 9 of 12
// units.
Plan pipeline(double unit) {
  return make_plan({.schedule = "gpipe",
                    .microbatches = 3,
                    .devices_per_node = 2,
                    .local = {Seconds(0), BytesPerSecond(1e30)},
                    .costs = {stage_cost(unit, unit, unit)}});
}

// Steps much shorter than the clock's memory, and much longer.
constexpr double brief = 1e-7, slow = 1000;

auto all(double load) {
  return AllOf(Field("forward", &Load::forward, DoubleNear(load, 1e-4)),
               Field("backward", &Load::backward, DoubleNear(load, 1e-4)));
}

TEST(StageLoads, OfShortStepsAreWhatEachGpuComputesOfThem) {
  Plan plan = pipeline(brief);
  EXPECT_THAT(stage_loads(plan), ElementsAre(all(0.75), all(0.75)));
  plan.stages[0].cost.optimizer = Seconds(4 * brief);
  EXPECT_THAT(stage_loads(plan), ElementsAre(all(13.0 / 16), all(9.0 / 16)));
}

TEST(StageLoads, OfSlicesAreThoseOfTheirGpu) {
  Plan plan = pipeline(brief);
  DeviceType& type = plan.cluster.device_types[0];
  type.multiprocessors = 50, type.gpu_multiprocessors = 100;
  plan.stages[0].cost.optimizer = Seconds(4 * brief);
  EXPECT_THAT(stage_loads(plan), ElementsAre(all(11.0 / 16), all(11.0 / 16)));

  DeviceType large = type;
  large.name = "large";
  large.multiprocessors = 75, type.multiprocessors = 25;
  plan.cluster.device_types.push_back(large);
  plan.cluster.devices[1].type = 1;
  const double share = (0.25 * 13 + 0.75 * 9) / 16;
  EXPECT_THAT(stage_loads(plan), ElementsAre(all(share), all(share)));
}

// Slices of one GPU, which is half busy while one of them waits: stage 0 at its first forward and its last backward,
// stage 1 at its last forward... of three, one each.
TEST(StageLoads, OfLongStepsAreThoseOfTheMoment) {
  Plan plan = pipeline(slow);
  EXPECT_THAT(stage_loads(plan), ElementsAre(all(1), all(1))) << "a GPU that computes is busy";
  DeviceType& type = plan.cluster.device_types[0];
  type.multiprocessors = 50, type.gpu_multiprocessors = 100;
  for (const Load& load : stage_loads(plan)) {
    EXPECT_NEAR(load.forward, (0.5 + 1 + 1) / 3, 1e-3);
    EXPECT_NEAR(load.backward, (0.5 + 1 + 1) / 3, 1e-3);
  }
}

// With a memory as long as an action: forwards begin on a GPU that has rested, backwards on one that has not.
TEST(StageLoads, FollowWhatTheGpuDidBefore) {
  Plan plan = pipeline(clock_lag.value());
  const std::vector<Load> loads = stage_loads(plan);
  // Stage 0 forwards for three lags, rests for three until the first gradient, then works for six. With the periodic
  // mean m(t): m rises as 1 - (1 - m0) e^{-t/tau} from m0 at the step's start, and fades as e^{-t/tau} in the rest.
  const double e3 = std::exp(-3.0), e6 = std::exp(-6.0);
  const double start = ((1 - e3) * e3 * e6 + 1 - e6) / (1 - e3 * e3 * e6);
  const double at_rest_end = (1 - (1 - start) * e3) * e3;
  EXPECT_NEAR(loads[0].forward, 1 - (1 - start) * (1 - e3) / 3, 1e-9);
  EXPECT_NEAR(loads[0].backward, 1 - (1 - at_rest_end) * (1 - e6) / 6, 1e-9);
  EXPECT_GT(loads[0].forward, loads[0].backward);
}

}  // namespace
}  // namespace stagecraft
