// Whatever the schedule, a step makes the gradients of one unpartitioned step; or, if it is asynchronous, the updates
// that its formula says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/schedule/checker.hpp"
#include "runtime/memory_need.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {
namespace {

constexpr int samples = 8;

Transformer network(bool tied) {
  Transformer t = tiny_gpt(tied);
  t.layers = 6;  // eight layers with both ends
  return t;
}

// Every legal shape of few ranks and stages, with `samples` micro-batches.
std::vector<ScheduleShape> shapes_of(const ScheduleKind& kind) {
  std::vector<ScheduleShape> shapes;
  for (const int ranks : {1, 2, 4}) {
    for (const int stages_per_rank : {1, 2, 4}) {
      for (const int slices : {1, 2, 4}) {
        ScheduleShape shape{ranks, stages_per_rank, samples};
        shape.slices = slices;
        if (ranks * stages_per_rank <= 8 && kind.refuse(shape).empty()) shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

class EveryScheduleTest : public testing::TestWithParam<std::string> {};

const ScheduleKind& kind_named(const std::string& name) {
  return *std::find_if(schedule_kinds().begin(), schedule_kinds().end(),
                       [&](const ScheduleKind& kind) { return kind.name == name; });
}

TEST_P(EveryScheduleTest, MakesTheGradientsOfOneUnpartitionedStep) {
  const ScheduleKind& kind = kind_named(GetParam());
  int tried = 0;
  for (const bool tied : {false, true}) {
    const Step expected = take_step(make_plan(network(tied), {.cuts = {}, .microbatches = 1, .microbatch = samples}));
    for (const ScheduleShape& shape : shapes_of(kind)) {
      const ComputeSchedule schedule = kind.generate(shape);
      for (const Recompute recompute : {Recompute::none, Recompute::full}) {
        SCOPED_TRACE(fmt::format("{} ranks, {} stages a rank, {} slices, tied {}, recompute {}", shape.ranks,
                                 shape.stages_per_rank, shape.slices, tied, name(recompute)));
        expect_close(take_step(make_scheduled_plan(network(tied), schedule, {.recompute = recompute})), expected);
        ++tried;
      }
    }
  }
  EXPECT_GE(tried, 4);
}

TEST_P(EveryScheduleTest, WorksWithReplicas) {
  const ScheduleKind& kind = kind_named(GetParam());
  const Step expected = take_step(make_plan(network(true), {.cuts = {}, .microbatches = 1, .microbatch = 2 * samples}));
  const std::vector<ScheduleShape> shapes = shapes_of(kind);
  const ComputeSchedule schedule = kind.generate(shapes.back());
  expect_close(take_step(make_scheduled_plan(network(true), schedule, {.replicas = 2})), expected);
}

TEST_P(EveryScheduleTest, KeepsAsManyMicrobatchesAsTheChecker) {
  const ScheduleKind& kind = kind_named(GetParam());
  for (const ScheduleShape& shape : shapes_of(kind)) {
    const ComputeSchedule schedule = kind.generate(shape);
    const LoweredSchedule lowered = lower(schedule, {});
    const Placement placement(schedule);
    const auto peaks = peak_in_flight_by_stage(schedule);
    for (std::int32_t s = 0; s < schedule.stages; ++s) {
      int slabs = 0;
      for (const RankId rank : placement.ranks(StageId{s})) {
        const auto& actions = lowered.ranks[static_cast<std::size_t>(rank.value)];
        slabs = std::max(slabs, count_in_flight(actions, placement, rank, StageId{s}, false).slabs);
      }
      // A stage behind another of its rank takes its input as soon as that one has made it.
      const bool waits = s > 0 && placement.ranks(StageId{s}) == placement.ranks(StageId{s - 1});
      EXPECT_GE(slabs, peaks[static_cast<std::size_t>(s)]);
      if (!waits) {
        EXPECT_EQ(slabs, peaks[static_cast<std::size_t>(s)]) << "stage " << s;
      }
    }
  }
}

std::vector<std::string> synchronous_schedules() {
  std::vector<std::string> names;
  for (const ScheduleKind& kind : schedule_kinds()) {
    const ComputeSchedule schedule = kind.generate(shapes_of(kind).front());
    const bool trains = !schedule.forward_only && schedule.updates == WeightUpdates::synchronous;
    if (trains) names.emplace_back(kind.name);
  }
  return names;
}

std::string case_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = "schedule_" + info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Schedules, EveryScheduleTest, testing::ValuesIn(synchronous_schedules()), case_name);

TEST(Inference, ReportsTheLossAndTrainsNothing) {
  const Step trained = take_step(make_plan(network(false), {.cuts = {}, .microbatches = samples}));
  const ComputeSchedule schedule = make_schedule("inference", {2, 2, samples});
  const Step step = take_step(make_scheduled_plan(network(false), schedule));
  EXPECT_NEAR(step.loss, trained.loss, 1e-6);
  for (const auto& [name, gradient] : step.gradients) EXPECT_EQ(norm(gradient), 0) << name;
}

}  // namespace
}  // namespace stagecraft
