// Whatever the schedule, a step makes the gradients of one unpartitioned step; or, if it is asynchronous, the updates
// that its formula says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "models/schedule/checker.hpp"
#include "runtime/memory_need.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {
namespace {

constexpr int batch_size = 8;

Transformer network(bool tied) {
  Transformer t = tiny_gpt(tied);
  t.layers = 6;  // eight layers with both ends
  return t;
}

// Every legal shape of few ranks and stages, with `batch_size` micro-batches.
std::vector<ScheduleShape> shapes_of(const ScheduleKind& kind) {
  std::vector<ScheduleShape> shapes;
  for (const int ranks : {1, 2, 4}) {
    for (const int stages_per_rank : {1, 2, 4}) {
      for (const int slices : {1, 2, 4}) {
        ScheduleShape shape{ranks, stages_per_rank, batch_size};
        shape.slices = slices;
        if (ranks * stages_per_rank <= 8 && kind.refuse(shape).empty()) shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

// By stage: the most activations that one rank kept at a time, read off what ran when.
std::vector<int> measured_in_flight(const ComputeSchedule& schedule, std::vector<TraceEvent> events) {
  std::stable_sort(events.begin(), events.end(),
                   [](const TraceEvent& a, const TraceEvent& b) { return a.start < b.start; });
  std::vector<int> peaks(static_cast<std::size_t>(schedule.stages));
  std::map<std::pair<std::int32_t, std::int32_t>, int> kept;  // by rank and stage
  for (const TraceEvent& event : events) {
    int& now = kept[{event.rank.value, event.action.stage.value}];
    const ActionKind kind = event.action.kind;
    if (kind == ActionKind::forward) ++now;
    if (kind == ActionKind::backward || kind == ActionKind::backward_weight) --now;
    int& peak = peaks[static_cast<std::size_t>(event.action.stage.value)];
    peak = std::max(peak, now);
  }
  return peaks;
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
    const Step expected =
        take_step(make_plan(network(tied), {.cuts = {}, .microbatches = 1, .microbatch = batch_size}));
    for (const ScheduleShape& shape : shapes_of(kind)) {
      const ComputeSchedule schedule = kind.generate(shape);
      for (const Recompute recompute : {Recompute::none, Recompute::full}) {
        SCOPED_TRACE(fmt::format("{} ranks, {} stages a rank, {} slices, tied {}, recompute {}", shape.ranks,
                                 shape.stages_per_rank, shape.slices, tied, name(recompute)));
        const Step step = take_step(make_scheduled_plan(network(tied), schedule, {.recompute = recompute}));
        expect_close(step, expected);
        EXPECT_EQ(measured_in_flight(schedule, step.events), peak_in_flight_by_stage(schedule));
        ++tried;
      }
    }
  }
  EXPECT_GE(tried, 4);
}

TEST_P(EveryScheduleTest, WorksWithReplicas) {
  const ScheduleKind& kind = kind_named(GetParam());
  const Step expected =
      take_step(make_plan(network(true), {.cuts = {}, .microbatches = 1, .microbatch = std::int64_t{2} * batch_size}));
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
        slabs = std::max(slabs, count_in_flight(schedule, actions, placement, rank, StageId{s}).slabs);
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

std::string schedule_case_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = "schedule_" + info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Schedules, EveryScheduleTest, testing::ValuesIn(synchronous_schedules()), schedule_case_name);

// All forwards, then each micro-batch's slices backwards, with the weight gradients split off or not.
ComputeSchedule sliced_gpipe(int ranks, int microbatches, int slices, bool split) {
  ComputeSchedule schedule{"custom", ranks, microbatches * slices, {}};
  schedule.slices = slices;
  for (int rank = 0; rank < ranks; ++rank) {
    auto& actions = schedule.ranks.emplace_back();
    const auto add = [&](ActionKind kind, int m) { actions.push_back({kind, StageId{rank}, MicrobatchId{m}}); };
    for (int m = 0; m < schedule.microbatches; ++m) add(ActionKind::forward, m);
    for (int m = 0; m < microbatches; ++m) {
      for (int i = slices - 1; i >= 0; --i) {
        add(split ? ActionKind::backward_input : ActionKind::backward, m * slices + i);
      }
    }
    for (int m = 0; m < schedule.microbatches && split; ++m) add(ActionKind::backward_weight, m);
  }
  return schedule;
}

TEST(TokenSlices, MakeTheGradientsOfWholeSequences) {
  for (Transformer transformer : {tiny_gpt(true), tiny_llama()}) {
    transformer.layers = 3;
    const Step expected = take_step(make_plan(transformer, {.cuts = {}, .microbatches = 1, .microbatch = 4}));
    for (const int ranks : {1, 2}) {
      for (const int slices : {2, 4, 8}) {
        for (const bool split : {false, true}) {
          for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
            SCOPED_TRACE(fmt::format("{}: {} ranks, {} slices, split {}, recompute {}", transformer.family, ranks,
                                     slices, split, name(recompute)));
            const PlanShape shape{.microbatch = 2, .recompute = recompute};
            expect_close(take_step(make_scheduled_plan(transformer, sliced_gpipe(ranks, 2, slices, split), shape)),
                         expected);
          }
        }
      }
    }
  }
}

TEST(Inference, ReportsTheLossAndTrainsNothing) {
  const Step trained = take_step(make_plan(network(false), {.cuts = {}, .microbatches = batch_size}));
  const ComputeSchedule schedule = make_schedule("inference", {2, 2, batch_size});
  const Step step = take_step(make_scheduled_plan(network(false), schedule));
  EXPECT_NEAR(step.loss, trained.loss, 1e-6);
  for (const auto& [name, gradient] : step.gradients) EXPECT_EQ(norm(gradient), 0) << name;
}

}  // namespace
}  // namespace stagecraft
