// Replicas on GPUs and on slices of one: their gradients are summed, beside the backward where they have GPUs of their
// own, and with ZeRO 1 each keeps a share of the optimizer's state. Nothing of that changes what is computed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/runtime/cuda_fixture.hpp"

namespace stagecraft {
namespace {

// Blocks are large enough to be summed one by one.
Transformer wide_gpt() {
  Transformer t = small_gpt();
  t.hidden = 640;
  t.heads = t.kv_heads = 10;
  t.ffn = 2560;
  return t;
}

Plan replicated(const Transformer& t, std::uint8_t zero, const std::vector<std::int64_t>& cuts = {},
                const std::string& schedule = "1f1b") {
  PlanShape shape = whole();
  shape.cuts = cuts;
  shape.microbatches = 2;
  shape.replicas = 2;
  shape.schedule = schedule;
  Plan plan = make_plan(t, shape);
  plan.layout.zero = zero;
  return plan;
}

class CudaReplicas : public CudaTest {
 protected:
  TrainingOptions options(std::int64_t steps) {
    TrainingOptions options;
    options.steps = steps;
    options.optimizer.decay_steps = 8;
    options.data = {folder_.file("text.txt", sample_text())};
    options.oversubscribe = true;
    options.peer_timeout = std::chrono::seconds(20);
    return options;
  }
  Trace train_on_gpus(const Plan& plan, TrainingOptions options, DataType precision, int slice = 0) {
    options.backend = Backend::cuda;
    return train(on_gpu(plan, precision, gpus_.front(), slice), options);
  }
  static void expect_losses(const Trace& actual, const Trace& expected, double tolerance) {
    ASSERT_EQ(actual.losses.size(), expected.losses.size());
    for (std::size_t i = 0; i < expected.losses.size(); ++i) {
      EXPECT_NEAR(actual.losses[i], expected.losses[i], tolerance) << "step " << i + 1;
    }
  }
  TemporaryFolder folder_;
};

class CudaReplicasOnTwoGpus : public CudaReplicas {
 protected:
  void SetUp() override {
    CudaReplicas::SetUp();
    if (!IsSkipped() && gpus_.size() < 2) GTEST_SKIP() << "one GPU";
  }
};

TEST_F(CudaReplicas, OnSlicesSumTheirGradients) {
  const Transformer t = small_gpt();
  const Step expected = take_step(make_plan(t, whole()));
  for (const std::uint8_t zero : {0, 1}) {
    for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{}, {3}}) {
      SCOPED_TRACE(fmt::format("zero {}, {} cuts", zero, cuts.size()));
      expect_close(step(replicated(t, zero, cuts), DataType::fp32, cuts.empty() ? 64 : 32), expected);
    }
  }
}

TEST_F(CudaReplicas, OnSlicesLearnTheSameWithAShardedOptimizer) {
  for (const DataType precision : {DataType::fp32, DataType::bf16}) {
    const Trace expected = train_on_gpus(replicated(small_gpt(), 0), options(8), precision, 64);
    const Trace actual = train_on_gpus(replicated(small_gpt(), 1), options(8), precision, 64);
    expect_losses(actual, expected, precision == DataType::fp32 ? 1e-4 : 2e-2);
    EXPECT_LT(actual.peak_memory.front(), expected.peak_memory.front());
  }
}

TEST_F(CudaReplicasOnTwoGpus, SumTheirGradientsUnderEverySchedule) {
  const Step expected = take_step(make_plan(wide_gpt(), whole()));
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    for (const std::uint8_t zero : {0, 1}) {
      SCOPED_TRACE(fmt::format("{}, zero {}", schedule, zero));
      expect_close(step(replicated(wide_gpt(), zero, {}, schedule), DataType::fp32), expected);
    }
  }
  expect_close(step(replicated(wide_gpt(), 1), DataType::bf16), expected, 2e-2);
}

// The first steps sum after the backward, later ones beside it.
TEST_F(CudaReplicasOnTwoGpus, LossesOfManyStepsFollowTheCpus) {
  const Trace expected = train(make_plan(wide_gpt(), whole()), options(8));
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    for (const std::uint8_t zero : {0, 1}) {
      SCOPED_TRACE(fmt::format("{}, zero {}", schedule, zero));
      const Trace actual = train_on_gpus(replicated(wide_gpt(), zero, {}, schedule), options(8), DataType::fp32);
      expect_losses(actual, expected, 1e-4);
    }
  }
  EXPECT_LT(expected.losses.back(), expected.losses.front());
}

TEST_F(CudaReplicasOnTwoGpus, GradientsAreSummedBesideTheBackward) {
  for (const std::uint8_t zero : {0, 1}) {
    const Trace trace = train_on_gpus(replicated(wide_gpt(), zero), options(8), DataType::fp32);
    for (const int replica : {0, 1}) {
      Seconds backward_end{0}, sum_start{0}, sum_end{0}, update_start{0};
      for (const TraceEvent& event : trace.events) {
        if (event.step != 8 || event.replica != replica) continue;
        if (event.action.kind == ActionKind::backward) backward_end = std::max(backward_end, event.end);
        if (event.action.kind == ActionKind::reduce_grad) sum_start = event.start, sum_end = event.end;
        if (event.action.kind == ActionKind::optimizer_step) update_start = event.start;
      }
      EXPECT_GT(sum_start, Seconds(0));
      EXPECT_LT(sum_start, backward_end) << "zero " << int{zero} << ", replica " << replica;
      EXPECT_GE(sum_end, backward_end) << "the embedding's gradients come last";
      EXPECT_GE(update_start, sum_end);
    }
  }
}

TEST_F(CudaReplicasOnTwoGpus, ARunWithAShardedOptimizerGoesOnWithoutReplicasAndBack) {
  TrainingOptions first = options(8);
  first.checkpoint_directory = folder_.path() / "run";
  first.checkpoint_interval = 4;
  for (const DataType precision : {DataType::fp32, DataType::bf16}) {
    const Trace expected = train_on_gpus(replicated(wide_gpt(), 1), first, precision);
    TrainingOptions second = options(8);
    second.resume = checkpoint_path(first.checkpoint_directory, 4);
    for (const Plan& plan : {make_plan(wide_gpt(), whole()), replicated(wide_gpt(), 1)}) {
      const Trace actual = train_on_gpus(plan, second, precision);
      ASSERT_EQ(actual.losses.size(), 4U);
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_NEAR(actual.losses[i], expected.losses[i + 4], precision == DataType::fp32 ? 1e-4 : 2e-2);
      }
    }
  }
}

// A rank that stops leaves the others waiting on their GPUs.
TEST_F(CudaReplicasOnTwoGpus, AnEndInTheMiddleOfAStepLeavesNobodyWaiting) {
  std::atomic<bool> terminate{false};
  TrainingOptions endless = options(100'000'000);
  endless.terminate = &terminate;
  std::thread stopper;
  int steps = 0;
  endless.backend = Backend::cuda;
  const Plan plan = on_gpu(replicated(wide_gpt(), 0), DataType::fp32, gpus_.front(), 0);
  EXPECT_THROW(train(plan, endless,
                     [&](const StepReport&) {
                       if (++steps == 10) stopper = std::thread([&] { terminate = true; });
                     }),
               Error);
  stopper.join();
  EXPECT_GE(steps, 10);
}

}  // namespace
}  // namespace stagecraft
