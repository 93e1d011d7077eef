#include "sim/load.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

using test::make_plan;
using test::stage_cost;
using testing::DoubleNear;
using testing::ElementsAre;

// Two stages, forward 1 s and backward 2 s each: three of four slots computed with three micro-batches, 9 of 12 s.
Plan pipeline() {
  return make_plan({.schedule = "gpipe",
                    .microbatches = 3,
                    .devices_per_node = 2,
                    .local = {Seconds(0), BytesPerSecond(1e30)},
                    .costs = {stage_cost(1, 1, 1)}});
}

TEST(StageLoads, AreWhatEachGpuComputesOfTheStep) {
  Plan plan = pipeline();
  EXPECT_THAT(stage_loads(plan), ElementsAre(DoubleNear(0.75, 1e-9), DoubleNear(0.75, 1e-9)));
  plan.stages[0].cost.optimizer = Seconds(4);
  EXPECT_THAT(stage_loads(plan), ElementsAre(DoubleNear(13.0 / 16, 1e-9), DoubleNear(9.0 / 16, 1e-9)));
}

TEST(StageLoads, OfSlicesAreThoseOfTheirGpu) {
  Plan plan = pipeline();
  DeviceType& type = plan.cluster.device_types[0];
  type.multiprocessors = 50, type.gpu_multiprocessors = 100;
  plan.stages[0].cost.optimizer = Seconds(4);
  EXPECT_THAT(stage_loads(plan), ElementsAre(DoubleNear(11.0 / 16, 1e-9), DoubleNear(11.0 / 16, 1e-9)));

  DeviceType large = type;
  large.name = "large";
  large.multiprocessors = 75, type.multiprocessors = 25;
  plan.cluster.device_types.push_back(large);
  plan.cluster.devices[1].type = 1;
  const double share = (0.25 * 13 + 0.75 * 9) / 16;
  EXPECT_THAT(stage_loads(plan), ElementsAre(DoubleNear(share, 1e-9), DoubleNear(share, 1e-9)));
}

}  // namespace
}  // namespace stagecraft
