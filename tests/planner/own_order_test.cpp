#include "planner/own_order.hpp"

#include <gtest/gtest.h>

#include <string>

#include "models/schedule/checker.hpp"
#include "sim/plan_trace.hpp"
#include "sim/timeline.hpp"
#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

// Four unlike stages with slow messages, and memory for `activations` micro-batches a rank.
Plan plan_with(const std::string& schedule, double activations) {
  test::PlanShape shape;
  shape.schedule = schedule;
  shape.ranks = 4;
  shape.microbatches = 12;
  shape.local = shape.network = {Seconds(0.1), BytesPerSecond(1e9)};
  shape.costs = {test::stage_cost(1, 1.5, 1), test::stage_cost(2, 2, 1), test::stage_cost(1, 1, 2),
                 test::stage_cost(1.5, 2, 0.5)};
  for (StageCost& cost : shape.costs) cost.stash = Bytes(10);
  Plan plan = test::make_plan(shape);
  plan.cluster.device_types.front().memory = Bytes(10 * activations);
  return plan;
}

double step_of(const Plan& plan) { return Timeline(plan.lowered()).makespan(step_costs(plan)).value(); }

TEST(OwnOrder, SearchedIsNeverWorseThanTheNamedSchedulesThatFit) {
  Plan plan = plan_with("searched", 6);
  const double before = step_of(plan);
  adapt_schedule(plan);
  validate(plan, "plan");
  EXPECT_EQ(plan.schedule.name, "searched");
  EXPECT_TRUE(check_in_flight(plan.schedule, 6).empty());
  EXPECT_LT(step_of(plan), before);
  for (const char* name : {"1f1b", "zb-h1"}) EXPECT_LE(step_of(plan), step_of(plan_with(name, 6)) + 1e-9) << name;
  EXPECT_GE(step_of(plan), order_lower_bound(plan).value() - 1e-9);
  EXPECT_GT(order_lower_bound(plan).value(), 0.8 * step_of(plan));
}

TEST(OwnOrder, UsesMemoryThatIsThere) {
  Plan little = plan_with("searched", 4), much = plan_with("searched", 12);
  adapt_schedule(little);
  adapt_schedule(much);
  EXPECT_TRUE(check_in_flight(little.schedule, 4).empty());
  EXPECT_LE(step_of(much), step_of(little));
}

TEST(OwnOrder, MakesZeroBubbleSchedulesForTheStagesTimes) {
  Plan plan = plan_with("zb-1p", 100);
  const double before = step_of(plan);
  adapt_schedule(plan);
  EXPECT_LE(step_of(plan), before);
}

TEST(OwnOrder, LeavesSchedulesAloneThatAskForNoTimes) {
  Plan plan = plan_with("eager-1f1b", 100);
  const ComputeSchedule before = plan.schedule;
  adapt_schedule(plan);
  EXPECT_EQ(plan.schedule, before);
}

}  // namespace
}  // namespace stagecraft
