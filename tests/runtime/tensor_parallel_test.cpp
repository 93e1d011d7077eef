// Tensor parallelism, with and without sequence parallelism, changes nothing in what a step computes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "models/files.hpp"
#include "runtime/memory_need.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

constexpr std::int64_t sequences = 4;

// Four heads, keys and values alike, so that four shards can share them; a vocabulary that two do not divide.
Transformer wide_gpt(bool tied) {
  Transformer t = tiny_gpt(tied);
  t.heads = t.kv_heads = 4;
  t.head_size = 4;
  t.vocabulary = 35;
  return t;
}

Transformer wide_llama(bool tied) {
  Transformer t = tiny_llama(tied);
  t.heads = 8;
  t.kv_heads = 4;
  t.head_size = 2;
  return t;
}

struct NamedNetwork {
  std::string name;
  Transformer transformer;
};

// The network, and whether it is sequence parallel.
class TensorParallel : public testing::TestWithParam<std::tuple<NamedNetwork, bool>> {
 protected:
  const Transformer& transformer() const { return std::get<0>(GetParam()).transformer; }
  Step unsplit() const {
    return take_step(make_plan(transformer(), {.cuts = {}, .microbatches = 1, .microbatch = sequences}));
  }
  Plan plan(PlanShape shape) const {
    shape.sequence_parallel = std::get<1>(GetParam());
    if (shape.tensor == 1) shape.tensor = 2;
    return make_plan(transformer(), shape);
  }
  TrainingOptions options(std::int64_t steps) const {
    return clipped_training(folder_.file("text.txt", sample_text()), steps);
  }

  TemporaryFolder folder_;
};

TEST_P(TensorParallel, GivesTheGradientsOfTheUnsplitNetwork) {
  const Step expected = unsplit();
  for (const int tensor : {2, 4}) {
    expect_close(take_step(plan({.cuts = {}, .microbatches = 2, .microbatch = 2, .tensor = tensor})), expected);
  }
}

TEST_P(TensorParallel, GoesWithPipelines) {
  const Step expected = unsplit();
  for (const std::string schedule : {"gpipe", "1f1b"}) {
    for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{2}, {1}, {1, 2, 3}}) {
      expect_close(take_step(plan({.cuts = cuts, .schedule = schedule})), expected);
    }
  }
}

TEST_P(TensorParallel, GoesWithReplicas) {
  expect_close(take_step(plan({.cuts = {2}, .microbatches = 2, .replicas = 2})), unsplit());
}

TEST_P(TensorParallel, GoesWithSplitBackwardsAndSlices) {
  const Step expected = unsplit();
  for (const char* schedule : {"zb-h1", "seq-1f1b"}) {
    const ComputeSchedule made = make_schedule(schedule, {2, 1, static_cast<int>(sequences)});
    expect_close(take_step(make_scheduled_plan(transformer(), made,
                                               [&] {
                                                 PlanShape shape;
                                                 shape.tensor = 2;
                                                 shape.sequence_parallel = std::get<1>(GetParam());
                                                 return shape;
                                               }())),
                 expected);
  }
}

TEST_P(TensorParallel, GivesTheSameBitsWithRecomputation) {
  const Step expected = take_step(plan({.cuts = {2}}));
  for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
    const Step repeated = take_step(plan({.cuts = {2}, .recompute = recompute}));
    EXPECT_EQ(repeated.loss, expected.loss);
    EXPECT_EQ(repeated.gradients, expected.gradients);
  }
}

TEST_P(TensorParallel, TrainsToTheSameLossesAndHandsItsCheckpointsOn) {
  const Plan whole = make_plan(transformer(), {.cuts = {2}}), split = plan({.cuts = {2}});
  const Trace expected = train(whole, options(6));
  const Trace measured = train(split, options(6));
  for (std::size_t step = 0; step < 6; ++step) EXPECT_NEAR(measured.losses[step], expected.losses[step], 2e-5);

  // Three steps on one, three on the other.
  for (const bool first_whole : {true, false}) {
    TrainingOptions start = options(3), rest = options(6);
    start.checkpoint_directory = folder_.path() / (first_whole ? "whole" : "split");
    rest.resume = start.checkpoint_directory;
    train(first_whole ? whole : split, start);
    const Trace resumed = train(first_whole ? split : whole, rest);
    ASSERT_EQ(resumed.losses.size(), 3U);
    for (std::size_t step = 0; step < 3; ++step) EXPECT_NEAR(resumed.losses[step], expected.losses[3 + step], 2e-5);
  }
}

TEST_P(TensorParallel, StartsFromTheSameWeightsWhateverTheWidth) {
  TrainingOptions once = options(1);
  once.optimizer.learning_rate = 0;  // the checkpoint holds the initial weights
  std::string first;
  for (const int tensor : {1, 2, 4}) {
    once.checkpoint_directory = folder_.path() / std::to_string(tensor);
    PlanShape shape{.cuts = {2}, .tensor = tensor};
    shape.sequence_parallel = tensor > 1 && std::get<1>(GetParam());
    train(make_plan(transformer(), shape), once);
    const SafetensorsReader reader(checkpoint_path(once.checkpoint_directory, 1));
    std::string weights;
    for (const Parameter& parameter : network_parameters(transformer())) {
      std::vector<float> values(static_cast<std::size_t>(parameter.count()));
      reader.read(parameter.name, parameter.shape, values);
      weights.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    }
    if (first.empty()) first = weights;
    EXPECT_TRUE(weights == first) << tensor;
  }
}

TEST_P(TensorParallel, HoldsTheMemoryThatWasForeseen) {
  const Plan split = plan({.cuts = {2}, .microbatch = 2});
  const Trace trace = train(split, options(2));
  ASSERT_EQ(trace.peak_memory.size(), 4U);
  for (int row = 0; row < 4; ++row) {
    const double foreseen = static_cast<double>(memory_need(split, split.lowered(), row % 2).total());
    EXPECT_GE(trace.peak_memory[static_cast<std::size_t>(row)].value(), foreseen * 0.98);
    EXPECT_LE(trace.peak_memory[static_cast<std::size_t>(row)].value(), foreseen + 64 * 4096);
  }
}

TEST_P(TensorParallel, TracesEveryShard) {
  const Plan split = plan({.cuts = {2}, .replicas = 2});
  const Step step = take_step(split);
  std::map<std::tuple<int, int, int>, int> events;  // replica, shard, rank
  for (const TraceEvent& event : step.events) ++events[{event.replica, event.shard, event.rank.value}];
  EXPECT_EQ(events.size(), 8U);
  for (const auto& [place, count] : events) {
    EXPECT_EQ(count, (events[{0, 0, std::get<2>(place)}]));
  }
}

std::string network_and_mode(const testing::TestParamInfo<std::tuple<NamedNetwork, bool>>& info) {
  return std::get<0>(info.param).name + (std::get<1>(info.param) ? "_sequence_parallel" : "");
}

INSTANTIATE_TEST_SUITE_P(Networks, TensorParallel,
                         testing::Combine(testing::Values(NamedNetwork{"gpt", wide_gpt(false)},
                                                          NamedNetwork{"tied_gpt", wide_gpt(true)},
                                                          NamedNetwork{"llama", wide_llama(false)},
                                                          NamedNetwork{"tied_llama", wide_llama(true)}),
                                          testing::Bool()),
                         network_and_mode);

std::string complaint(const Plan& plan, ErrorKind kind) {
  try {
    TrainingOptions options;
    options.oversubscribe = true;
    check_runnable(plan, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "";
}

TEST(TensorParallelPlans, AreRefusedWhereTheNetworkCannotBeShared) {
  EXPECT_EQ(complaint(make_plan(tiny_llama(), {.cuts = {2}, .tensor = 4}), ErrorKind::bad_input),
            "kv_heads: expected a multiple of 4 (tensor), got 2");
  Plan plan = make_plan(tiny_gpt(), {.cuts = {2}, .tensor = 2});
  plan.layout.zero = 1;
  EXPECT_THAT(complaint(plan, ErrorKind::device), HasSubstr("\"zero\":1"));
}

}  // namespace
}  // namespace stagecraft
