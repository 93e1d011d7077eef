// On a GPU a step makes the gradients that it makes on the CPU, however the network is cut, scheduled and recomputed,
// on a whole GPU and on slices of one. Where there is no GPU, the tests say so and are skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "tests/runtime/cuda_fixture.hpp"

namespace stagecraft {
namespace {

Plan staged(const Transformer& t, int stages, const std::string& schedule, Recompute recompute) {
  PlanShape shape = whole();
  for (int s = 1; s < stages; ++s) shape.cuts.push_back(s * (t.layers + 2) / stages);
  shape.schedule = schedule;
  shape.recompute = recompute;
  return make_plan(t, shape);
}

TEST_F(CudaTest, AStepOfOneStageEqualsTheCpus) {
  for (const Transformer& t : {tiny_gpt(), tiny_gpt(true), tiny_llama(), small_gpt(), small_llama()}) {
    SCOPED_TRACE(t.family + " " + std::to_string(t.hidden));
    PlanShape shape = whole();
    shape.sequence = std::min<std::int64_t>(32, t.max_sequence);
    const Plan plan = make_plan(t, shape);
    expect_close(step(plan, DataType::fp32), take_step(plan));
  }
}

TEST_F(CudaTest, Bf16AndTf32AreAsCloseAsTheirFractions) {
  for (const Transformer& t : {small_gpt(), small_llama()}) {
    SCOPED_TRACE(t.family);
    const Plan plan = make_plan(t, whole());
    const Step expected = take_step(plan);
    expect_close(step(plan, DataType::bf16), expected, 2e-2);
    expect_close(step(plan, DataType::tf32), expected, 5e-3);
  }
}

// At a length at which cuDNN's workspace for their gradients counts.
TEST_F(CudaTest, HeadsThatShareKeysInLongSequences) {
  Transformer t = small_llama();
  t.layers = 2;
  t.hidden = 512;
  t.heads = 8;
  t.kv_heads = 2;
  t.max_sequence = 1024;
  const Plan plan = make_plan(t, {.cuts = {}, .microbatches = 2, .microbatch = 1, .sequence = 1024});
  expect_close(step(plan, DataType::bf16), take_step(plan), 2e-2);
}

TEST_F(CudaTest, DeterministicRunsInBf16RepeatEveryBit) {
  const TemporaryFolder folder;
  TrainingOptions options;
  options.backend = Backend::cuda;
  options.deterministic = true;
  options.algorithm_cache = folder.path() / "algorithms.txt";
  options.steps = 8;
  options.data = {folder.file("text.txt", sample_text())};
  Transformer t = small_llama();
  t.max_sequence = 512;
  const PlanShape shape{.cuts = {3}, .microbatches = 4, .microbatch = 2, .schedule = "1f1b", .sequence = 512};
  const Plan plan = on_gpu(make_plan(t, shape), DataType::bf16, gpus_.front(), 64);
  std::vector<std::vector<double>> losses;
  std::vector<Tensors> parameters;
  for (const std::string run : {"first", "second"}) {
    options.checkpoint_directory = folder.path() / run;
    losses.push_back(train(plan, options).losses);
    parameters.push_back(tensors_in(checkpoint_path(options.checkpoint_directory, options.steps)));
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(parameters[0], parameters[1]);
}

TEST_F(CudaTest, RecomputationChangesNothing) {
  for (const Transformer& t : {small_gpt(), small_llama()}) {
    SCOPED_TRACE(t.family);
    const Step expected = step(make_plan(t, whole()), DataType::fp32);
    for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
      PlanShape shape = whole();
      shape.recompute = recompute;
      const Step actual = step(make_plan(t, shape), DataType::fp32);
      expect_close(actual, expected);
    }
  }
}

TEST_F(CudaTest, SlicesOfAGpuMakeTheGradientsOfTheCpuUnderEverySchedule) {
  for (const Transformer& t : {small_gpt(), small_llama()}) {
    const Step expected = take_step(make_plan(t, whole()));
    for (const int stages : {2, 4}) {
      for (const std::string schedule : {"gpipe", "1f1b", "zb-h1", "zb-h2"}) {
        for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
          SCOPED_TRACE(fmt::format("{}, {} slices, {}, recompute {}", t.family, stages, schedule, name(recompute)));
          const Plan plan = staged(t, stages, schedule, recompute);
          expect_close(step(plan, DataType::fp32, 128 / stages / 8 * 8), expected);
        }
      }
    }
  }
}

TEST_F(CudaTest, SlicesInBf16) {
  const Step expected = take_step(make_plan(small_gpt(), whole()));
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    SCOPED_TRACE(schedule);
    expect_close(step(staged(small_gpt(), 4, schedule, Recompute::none), DataType::bf16, 32), expected, 2e-2);
  }
}

TEST_F(CudaTest, SeveralStagesOnARank) {
  const Transformer t = small_gpt();
  const Step expected = take_step(make_plan(t, whole()));
  for (const std::string name : {"interleaved-1f1b", "zb-v", "looped-bfs"}) {
    SCOPED_TRACE(name);
    const ComputeSchedule schedule = make_schedule(name, {.ranks = 2, .stages_per_rank = 2, .microbatches = 4});
    PlanShape shape = whole();
    expect_close(step(make_scheduled_plan(t, schedule, shape), DataType::fp32, 64), expected);
  }
}

TEST_F(CudaTest, EverySynchronousSchedule) {
  int tried = 0;
  for (Transformer t : {small_gpt(), small_llama()}) {
    t.layers = 6;  // eight layers with both ends
    const Step expected = take_step(make_plan(t, {.cuts = {}, .microbatches = 4, .microbatch = 2, .sequence = 32}));
    for (const ScheduleKind& kind : schedule_kinds()) {
      for (const auto& [ranks, stages_per_rank, slices] :
           {std::array{2, 1, 1}, {4, 1, 1}, {2, 2, 1}, {4, 2, 1}, {2, 1, 2}, {4, 1, 4}}) {
        ScheduleShape shape{.ranks = ranks, .stages_per_rank = stages_per_rank, .microbatches = 8};
        shape.slices = slices;
        if (!kind.refuse(shape).empty()) continue;
        const ComputeSchedule schedule = kind.generate(shape);
        if (schedule.forward_only || schedule.updates != WeightUpdates::synchronous) continue;
        SCOPED_TRACE(fmt::format("{}, {}, {} ranks, {} stages each, {} slices", t.family, kind.name, ranks,
                                 stages_per_rank, slices));
        const Plan plan = make_scheduled_plan(t, schedule, {.microbatch = 1, .sequence = 32});
        expect_close(step(plan, DataType::fp32, 128 / ranks / 8 * 8), expected);
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 60);
}

TEST_F(CudaTest, SlicesOfSequencesInBf16AndRecomputed) {
  const Step expected = take_step(make_plan(small_llama(), whole()));
  ScheduleShape slices{.ranks = 2, .microbatches = 4};
  slices.slices = 4;
  const ComputeSchedule schedule = make_schedule("seq-1f1b", slices);
  for (const Recompute recompute : {Recompute::none, Recompute::full}) {
    PlanShape shape = whole();
    shape.recompute = recompute;
    const Plan plan = make_scheduled_plan(small_llama(), schedule, shape);
    expect_close(step(plan, DataType::fp32, 64), expected);
    expect_close(step(plan, DataType::bf16, 64), expected, 2e-2);
  }
}

TEST_F(CudaTest, InferenceReportsTheLossOfTheCpu) {
  const TemporaryFolder folder;
  TrainingOptions options;
  options.steps = 4;
  options.data = {folder.file("text.txt", sample_text())};
  options.oversubscribe = true;
  const ComputeSchedule schedule = make_schedule("inference", {.ranks = 4, .microbatches = 8});
  const Plan plan = make_scheduled_plan(small_gpt(), schedule, {.sequence = 32});
  const Trace expected = train(plan, options);
  options.backend = Backend::cuda;
  const Trace actual = train(on_gpu(plan, DataType::fp32, gpus_.front(), 32), options);
  ASSERT_EQ(actual.losses.size(), expected.losses.size());
  for (std::size_t i = 0; i < expected.losses.size(); ++i) EXPECT_NEAR(actual.losses[i], expected.losses[i], 1e-4);
}

TEST_F(CudaTest, StagesOnSeveralGpus) {
  if (gpus_.size() < 2) GTEST_SKIP() << "one GPU";
  const Transformer t = small_gpt();
  const Step expected = take_step(make_plan(t, whole()));
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    SCOPED_TRACE(schedule);
    expect_close(step(staged(t, 2, schedule, Recompute::none), DataType::fp32), expected);
  }
}

// Graphs are captured in the second step and replayed from the third on.
TEST_F(CudaTest, LossesOfManyStepsFollowTheCpus) {
  const TemporaryFolder folder;
  TrainingOptions options;
  options.steps = 12;
  options.data = {folder.file("text.txt", sample_text())};
  options.oversubscribe = true;
  const Plan plan = staged(small_gpt(), 2, "1f1b", Recompute::none);
  const Trace expected = train(plan, options);
  options.backend = Backend::cuda;
  const Trace actual = train(on_gpu(plan, DataType::fp32, gpus_.front(), 64), options);
  ASSERT_EQ(actual.losses.size(), expected.losses.size());
  for (std::size_t i = 0; i < expected.losses.size(); ++i) {
    EXPECT_NEAR(actual.losses[i], expected.losses[i], 1e-4) << "step " << i + 1;
  }
  EXPECT_LT(expected.losses.back(), expected.losses.front());
  EXPECT_EQ(expected.clocks.size(), 0U);
  ASSERT_EQ(actual.clocks.size(), 2U);
  for (const double clock : actual.clocks) {
    EXPECT_GT(clock, 1e8);
    EXPECT_LT(clock, 4e9);
  }
}

TEST_F(CudaTest, ARunGoesOnFromItsCheckpointAndFromTheCpus) {
  const TemporaryFolder folder;
  TrainingOptions options;
  options.steps = 6;
  options.optimizer.decay_steps = 6;
  options.data = {folder.file("text.txt", sample_text())};
  options.checkpoint_directory = folder.path() / "run";
  options.checkpoint_interval = 3;
  options.oversubscribe = true;
  const Plan plan = make_plan(small_gpt(), whole());
  const Trace whole_run = train(plan, options);
  options.backend = Backend::cuda;
  options.resume = checkpoint_path(options.checkpoint_directory, 3);
  options.checkpoint_directory.clear();
  const Trace second_half = train(on_gpu(plan, DataType::fp32, gpus_.front(), 0), options);
  ASSERT_EQ(second_half.losses.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(second_half.losses[i], whole_run.losses[i + 3], 1e-4);
}

TEST_F(CudaTest, TheTraceHoldsDeviceTimesInTheOrderOfTheList) {
  const Plan plan = on_gpu(staged(small_gpt(), 2, "1f1b", Recompute::none), DataType::fp32, gpus_.front(), 64);
  const Step result = take_step(plan, Backend::cuda);
  for (int rank = 0; rank < 2; ++rank) {
    Seconds last{0};
    int computed = 0;
    for (const TraceEvent& event : result.events) {
      if (event.rank.value != rank || !is_compute(event.action.kind)) continue;
      EXPECT_GE(event.start, last) << to_string(event.action);
      EXPECT_GT(event.end, event.start) << to_string(event.action);
      last = event.end;
      ++computed;
    }
    EXPECT_EQ(computed, 8);
  }
}

TEST_F(CudaTest, APlanForMoreGpusThanThereAreIsRefused) {
  PlanShape shape = whole();
  shape.replicas = static_cast<int>(gpus_.size()) + 1;
  shape.microbatches = 1;
  const Plan plan = make_plan(small_gpt(), shape);
  try {
    step(plan, DataType::fp32);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_THAT(error.what(), testing::HasSubstr(fmt::format("this machine has {}", gpus_.size())));
  }
}

}  // namespace
}  // namespace stagecraft
