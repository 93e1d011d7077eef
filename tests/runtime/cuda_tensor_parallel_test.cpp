// Shards of a rank on GPUs of their own: the gradients and losses of the CPU backend's unsplit network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "runtime/cuda/layout.hpp"
#include "tests/runtime/cuda_fixture.hpp"

namespace stagecraft {
namespace {

// The last shard of two has fewer tokens than the first.
Transformer odd_vocabulary(Transformer t) {
  t.vocabulary = 201;
  return t;
}

Transformer untied(Transformer t) {
  t.tied_head = false;
  return t;
}

struct Case {
  std::string name;
  Transformer transformer;
};

class CudaTensorParallel : public CudaTest, public testing::WithParamInterface<std::tuple<Case, bool>> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!IsSkipped() && gpus_.size() < 2) GTEST_SKIP() << "one GPU: shards need one each";
  }
  const Transformer& transformer() const { return std::get<0>(GetParam()).transformer; }
  Plan split(PlanShape shape) const {
    shape.tensor = 2;
    shape.sequence_parallel = std::get<1>(GetParam());
    return make_plan(transformer(), shape);
  }
  TrainingOptions options(std::int64_t steps) {
    return clipped_training(folder_.file("text.txt", sample_text()), steps);
  }
  Trace train_on_gpus(const Plan& plan, TrainingOptions options, DataType precision = DataType::fp32) {
    options.backend = Backend::cuda;
    return train(on_gpu(plan, precision, gpus_.front(), 0), options);
  }

  TemporaryFolder folder_;
};

TEST_P(CudaTensorParallel, GivesTheGradientsOfTheUnsplitNetwork) {
  const Step expected = take_step(make_plan(transformer(), whole()));
  expect_close(step(split(whole()), DataType::fp32), expected);
  expect_close(step(split(whole()), DataType::bf16), expected, 2e-2);
}

TEST_P(CudaTensorParallel, GoesWithRecomputationAndSplitBackwards) {
  PlanShape shape = whole();
  const Step expected = take_step(make_plan(transformer(), shape));
  shape.recompute = Recompute::full;
  Plan plan = split(shape);
  expect_close(step(plan, DataType::fp32), expected);
  plan.schedule = split_backwards(plan.schedule);
  expect_close(step(plan, DataType::fp32), expected);
}

// Over several steps, so that captured graphs run, with clipping and on from a checkpoint: to the CPU backend's unsplit
// network, and to shards again.
TEST_P(CudaTensorParallel, TrainsToTheLossesOfTheCpuBackend) {
  const Plan unsplit = make_plan(transformer(), whole());
  const Trace expected = train(unsplit, options(8));
  TrainingOptions start = options(4), rest = options(8);
  start.checkpoint_directory = folder_.path() / "checkpoints";
  rest.resume = start.checkpoint_directory;
  const Trace first = train_on_gpus(split(whole()), start);
  ASSERT_EQ(first.losses.size(), 4U);
  for (std::size_t step = 0; step < 4; ++step) EXPECT_NEAR(first.losses[step], expected.losses[step], 5e-5);
  for (const Trace& resumed : {train(unsplit, rest), train_on_gpus(split(whole()), rest)}) {
    ASSERT_EQ(resumed.losses.size(), 4U);
    for (std::size_t step = 0; step < 4; ++step) EXPECT_NEAR(resumed.losses[step], expected.losses[4 + step], 5e-5);
  }
  const Trace coarse = train_on_gpus(split(whole()), options(8), DataType::bf16);
  for (std::size_t step = 0; step < 8; ++step) EXPECT_NEAR(coarse.losses[step], expected.losses[step], 2e-2);
}

// What `run` compares with the GPU's memory before it starts is what the shards then take.
TEST_P(CudaTensorParallel, TakesTheMemoryThatWasForeseen) {
  const Plan plan = split(whole());
  const Trace trace = train_on_gpus(plan, options(1));
  ASSERT_EQ(trace.peak_memory.size(), 2U);
  for (int shard = 0; shard < 2; ++shard) {
    const auto foreseen = static_cast<double>(cuda::lay_out_rank(plan, plan.lowered(), 0, shard).arena_bytes);
    EXPECT_NEAR(trace.peak_memory[static_cast<std::size_t>(shard)].value(), foreseen, 0.02 * foreseen);
  }
}

TEST_P(CudaTensorParallel, GoesWithPipelinesOnFourGpus) {
  if (gpus_.size() < 4) GTEST_SKIP() << "fewer than four GPUs";
  PlanShape shape = whole();
  const Step expected = take_step(make_plan(transformer(), shape));
  shape.cuts = {3};
  shape.schedule = "1f1b";
  expect_close(step(split(shape), DataType::fp32), expected);
}

// A shard that stops leaves the other waiting on its GPU, inside a graph.
TEST_P(CudaTensorParallel, AnEndInTheMiddleOfAStepLeavesNobodyWaiting) {
  std::atomic<bool> terminate{false};
  TrainingOptions endless = options(100'000'000);
  endless.terminate = &terminate;
  endless.backend = Backend::cuda;
  std::thread stopper;
  int steps = 0;
  EXPECT_THROW(train(on_gpu(split(whole()), DataType::fp32, gpus_.front(), 0), endless,
                     [&](const StepReport&) {
                       if (++steps == 10) stopper = std::thread([&] { terminate = true; });
                     }),
               Error);
  stopper.join();
  EXPECT_GE(steps, 10);
}

std::string case_name(const testing::TestParamInfo<std::tuple<Case, bool>>& info) {
  return std::get<0>(info.param).name + (std::get<1>(info.param) ? "_sequence_parallel" : "");
}

INSTANTIATE_TEST_SUITE_P(Networks, CudaTensorParallel,
                         testing::Combine(testing::Values(Case{"tied_gpt", odd_vocabulary(small_gpt())},
                                                          Case{"untied_gpt", untied(small_gpt())},
                                                          Case{"llama", odd_vocabulary(small_llama())}),
                                          testing::Bool()),
                         case_name);

}  // namespace
}  // namespace stagecraft
