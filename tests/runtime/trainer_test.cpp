#include "runtime/trainer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "runtime/checkpoint.hpp"
#include "runtime/memory_need.hpp"
#include "runtime/safetensors.hpp"
#include "runtime/worker.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

class TrainerTest : public testing::Test {
 protected:
  TrainingOptions options(std::int64_t steps) const {
    TrainingOptions options;
    options.steps = steps;
    options.data = {text_};
    options.oversubscribe = true;
    options.peer_timeout = std::chrono::seconds(20);
    return options;
  }
  static std::string complaint(const Plan& plan, const TrainingOptions& options, ErrorKind kind) {
    try {
      train(plan, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  std::filesystem::path text_ = folder_.file("text.txt", sample_text());
};

TEST_F(TrainerTest, LossFallsInTwoStages) {
  const Plan plan = make_plan(tiny_gpt(), {.cuts = {2}});
  TrainingOptions options = this->options(30);
  options.optimizer.learning_rate = 1e-2;
  const Trace trace = train(plan, options);
  ASSERT_EQ(trace.losses.size(), 30U);
  EXPECT_NEAR(trace.losses.front(), std::log(32.0), 0.2);
  EXPECT_LT(trace.losses.back(), trace.losses.front() - 0.5);
}

TEST_F(TrainerTest, LossFallsForRegression) {
  Transformer transformer = tiny_llama();
  transformer.head = HeadKind::regression;
  TrainingOptions options = this->options(30);
  options.optimizer.learning_rate = 1e-2;
  const Trace trace =
      train(make_plan(transformer, {.cuts = {2}, .schedule = "1f1b", .optimizer = Optimizer::sgd}), options);
  EXPECT_LT(trace.losses.back(), 0.7 * trace.losses.front());
}

TEST_F(TrainerTest, LossesAreTheSameBitsEveryTime) {
  const Plan plan = make_plan(tiny_gpt(true), {.cuts = {1, 3}, .replicas = 2});
  EXPECT_EQ(train(plan, options(5)).losses, train(plan, options(5)).losses);
}

TEST_F(TrainerTest, TracesTheLastStepsOfEveryRank) {
  const Plan plan = make_plan(tiny_gpt(true), {.cuts = {2}, .replicas = 2, .schedule = "1f1b"});
  TrainingOptions options = this->options(6);
  options.trace_steps = 2;
  const Trace trace = train(plan, options);
  EXPECT_EQ(trace.step_times.size(), 6U);
  EXPECT_EQ(trace.peak_memory.size(), 4U);
  const LoweredSchedule schedule = plan.lowered();
  std::map<std::tuple<int, int, int>, std::vector<Action>> executed;
  for (const TraceEvent& event : trace.events) {
    EXPECT_GE(event.start, Seconds(0));
    EXPECT_GE(event.end, event.start);
    executed[{event.step, event.replica, event.rank.value}].push_back(event.action);
  }
  ASSERT_EQ(executed.size(), 8U);  // 2 steps, 2 replicas, 2 ranks
  for (auto& [key, actions] : executed) {
    EXPECT_GE(std::get<0>(key), 5);
    EXPECT_EQ(actions, schedule.ranks[static_cast<std::size_t>(std::get<2>(key))]);
  }
  // The file format accepts it.
  const Json json = to_json(trace);
  EXPECT_NO_THROW(trace_from_json(JsonValue(json, "trace.json")));
}

TEST_F(TrainerTest, ReportsEveryStep) {
  const Plan plan = make_plan(tiny_gpt(), {.cuts = {2}});
  std::vector<StepReport> reports;
  TrainingOptions options = this->options(4);
  options.optimizer.warmup_steps = 2;
  options.optimizer.schedule = LearningRateSchedule::constant;
  options.optimizer.learning_rate = 0.5;
  const Trace trace = train(plan, options, [&](const StepReport& report) { reports.push_back(report); });
  ASSERT_EQ(reports.size(), 4U);
  EXPECT_EQ(reports[3].step, 4);
  EXPECT_EQ(reports[3].loss, trace.losses[3]);
  EXPECT_EQ(reports[0].learning_rate, 0.25);
  EXPECT_EQ(reports[3].learning_rate, 0.5);
  EXPECT_GT(reports[0].gradient_norm, 0);
  EXPECT_GT(reports[0].tokens_per_second, 0);
}

TEST_F(TrainerTest, StopsAfterALossThatIsNotFinite) {
  const Plan plan = make_plan(tiny_gpt(true), {.cuts = {2}, .replicas = 2, .schedule = "1f1b"});
  TrainingOptions options = this->options(50);
  options.optimizer.learning_rate = 1e30;
  options.checkpoint_directory = folder_.path() / "diverged";
  options.checkpoint_interval = 1;
  std::int64_t last = 0;
  const Trace trace = train(plan, options, [&](const StepReport& report) { last = report.step; });
  ASSERT_LT(last, 50);
  ASSERT_EQ(trace.losses.size(), static_cast<std::size_t>(last));
  for (std::int64_t step = 1; step < last; ++step) {
    EXPECT_TRUE(std::isfinite(trace.losses[static_cast<std::size_t>(step) - 1]));
    EXPECT_TRUE(std::filesystem::exists(checkpoint_path(options.checkpoint_directory, step)));
  }
  EXPECT_FALSE(std::isfinite(trace.losses.back()));
  EXPECT_FALSE(std::signbit(trace.losses.back())) << "printed as nan, not -nan";
  EXPECT_FALSE(std::filesystem::exists(checkpoint_path(options.checkpoint_directory, last)));
  ASSERT_FALSE(trace.warnings.empty());
  EXPECT_THAT(trace.warnings.back(),
              testing::AllOf(testing::HasSubstr("the loss of step " + std::to_string(last) + " is "),
                             testing::HasSubstr("the checkpoint of step " + std::to_string(last - 1) + " gives")));
}

TEST_F(TrainerTest, ClipsTheGradientToTheAskedLength) {
  Plan plan = make_plan(tiny_gpt(true), {.cuts = {1, 2}, .optimizer = Optimizer::sgd});
  TrainingOptions options = this->options(1);
  options.optimizer.weight_decay = 0;
  options.optimizer.clip_norm = 0.01;
  options.checkpoint_directory = folder_.path() / "clipped";
  double before = 0;
  train(plan, options, [&](const StepReport& report) { before = report.gradient_norm; });
  const SafetensorsReader reader(checkpoint_path(options.checkpoint_directory, 1));
  double squares = 0;
  for (const TensorInfo& tensor : reader.tensors()) {
    if (!tensor.name.starts_with("velocity.")) continue;
    std::vector<float> data(static_cast<std::size_t>(tensor.elements()));
    reader.read(tensor.name, tensor.shape, data);
    for (const float value : data) squares += static_cast<double>(value) * value;
  }
  EXPECT_GT(before, 0.1);
  EXPECT_NEAR(std::sqrt(squares), 0.01, 1e-6);
}

// The same file content, whatever the partition that wrote it.
TEST_F(TrainerTest, ResumesBitExactlyInAnyPartition) {
  const auto plan = [](std::vector<std::int64_t> cuts) { return make_plan(tiny_gpt(), {.cuts = std::move(cuts)}); };
  TrainingOptions whole = options(6);
  whole.seed = 42;
  whole.checkpoint_interval = 3;
  whole.checkpoint_directory = folder_.path() / "whole";
  const Trace expected = train(plan({2}), whole);
  const std::string last = read_file(checkpoint_path(whole.checkpoint_directory, 6));

  for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{2}, {}, {1, 2, 3}}) {
    TrainingOptions rest = options(6);
    rest.resume = checkpoint_path(whole.checkpoint_directory, 3);
    rest.checkpoint_directory = folder_.path() / "rest";
    const Trace trace = train(plan(cuts), rest);
    EXPECT_THAT(trace.losses, testing::ElementsAreArray(expected.losses.begin() + 3, expected.losses.end()));
    EXPECT_TRUE(read_file(checkpoint_path(rest.checkpoint_directory, 6)) == last);
  }
}

TEST_F(TrainerTest, ResumesTiedNetworksAndReplicas) {
  const Plan plan = make_plan(tiny_llama(true), {.cuts = {2}, .replicas = 2, .optimizer = Optimizer::sgd});
  TrainingOptions first = options(4);
  first.checkpoint_interval = 2;
  first.checkpoint_directory = folder_.path() / "c";
  const Trace expected = train(plan, first);
  std::filesystem::remove(checkpoint_path(first.checkpoint_directory, 4));
  TrainingOptions rest = options(4);
  rest.resume = first.checkpoint_directory;  // its newest
  EXPECT_THAT(train(plan, rest).losses, testing::ElementsAre(expected.losses[2], expected.losses[3]));
}

TEST_F(TrainerTest, AStopFinishesTheStepAndLeavesAWholeCheckpoint) {
  const Plan plan = make_plan(tiny_gpt(), {.cuts = {2}});
  std::atomic<bool> stop = false;
  TrainingOptions options = this->options(100);
  options.stop = &stop;
  options.checkpoint_directory = folder_.path() / "stopped";
  const Trace trace = train(plan, options, [&](const StepReport& report) { stop = report.step == 3; });
  EXPECT_EQ(trace.losses.size(), 3U);
  TrainingOptions rest = this->options(100);
  rest.resume = options.checkpoint_directory;
  rest.stop = &stop;
  const Trace resumed = train(plan, rest, [&](const StepReport& report) {
    EXPECT_EQ(report.step, 4);
    stop = true;
  });
  EXPECT_EQ(resumed.losses.size(), 0U) << "the flag was still set";
}

TEST_F(TrainerTest, RefusesCheckpointsThatDoNotFit) {
  const Plan plan = make_plan(tiny_gpt(), {.cuts = {2}});
  TrainingOptions options = this->options(1);
  options.checkpoint_directory = folder_.path() / "c";
  train(plan, options);
  TrainingOptions resume = this->options(2);
  resume.resume = checkpoint_path(options.checkpoint_directory, 1);
  const auto refused = [&](const Plan& other) { return complaint(other, resume, ErrorKind::bad_input); };
  EXPECT_THAT(refused(make_plan(tiny_llama(), {})), HasSubstr("metadata.network"));
  EXPECT_THAT(refused(make_plan(tiny_gpt(), {.cuts = {2}, .optimizer = Optimizer::sgd})),
              HasSubstr("metadata.optimizer: expected the plan's optimizer, \"sgd\", got \"adamw\""));
  resume.seed = 7;
  EXPECT_THAT(refused(plan), HasSubstr("was trained with seed 1, asked for 7"));
  resume.seed.reset();
  resume.steps = 1;
  EXPECT_THAT(refused(plan), HasSubstr("is at step 1 already"));
  resume.steps = 2;
  resume.resume = folder_.path() / "none.safetensors";
  EXPECT_THAT(refused(plan), HasSubstr("none.safetensors: cannot be read"));
  std::filesystem::create_directory(folder_.path() / "empty");
  resume.resume = folder_.path() / "empty";
  EXPECT_THAT(refused(plan), HasSubstr("found none"));
  resume.resume =
      folder_.file("cut.safetensors", read_file(checkpoint_path(options.checkpoint_directory, 1)).substr(0, 9000));
  EXPECT_THAT(refused(plan), HasSubstr("truncated"));
  resume.resume = text_;
  EXPECT_NE(refused(plan), "");
}

TEST_F(TrainerTest, ACheckpointThatCannotBeWrittenEndsTheRun) {
  TrainingOptions options = this->options(1);
  options.checkpoint_directory = text_ / "below-a-file";
  EXPECT_THAT(complaint(make_plan(tiny_gpt(), {.cuts = {2}}), options, ErrorKind::bad_input),
              HasSubstr("cannot be written"));
}

TEST_F(TrainerTest, RefusesWhatTheMachineOrTheBackendLacks) {
  Plan plan = make_plan(tiny_gpt(), {.cuts = {2}});
  plan.cluster.device_types.front().kind = DeviceKind::gpu;
  EXPECT_THAT(complaint(plan, options(1), ErrorKind::device), HasSubstr("rank 0 of replica 0 needs device 0, a GPU"));

  TrainingOptions strict = options(1);
  strict.oversubscribe = false;
  EXPECT_THAT(
      complaint(make_plan(tiny_gpt(), {.cuts = {2}, .microbatches = 1, .replicas = 5000}), strict, ErrorKind::device),
      HasSubstr("the plan needs 10,000 CPU cores (5,000 replicas x 2 ranks)"));

  plan = make_plan(tiny_gpt(), {.cuts = {2}});
  plan.precision = DataType::bf16;
  EXPECT_THAT(complaint(plan, options(1), ErrorKind::bad_input), HasSubstr("trains in fp32, the plan says bf16"));
  plan = make_plan(tiny_gpt(), {.cuts = {2}});
  plan.cluster.device_types.front().group = 2;
  EXPECT_THAT(complaint(plan, options(1), ErrorKind::device), HasSubstr("is a group of 2 devices"));
  plan = make_plan(tiny_gpt(), {.cuts = {2}});
  plan.network.transformer.reset();
  EXPECT_THAT(complaint(plan, options(1), ErrorKind::bad_input), HasSubstr("hand-written graph"));

  Transformer huge = tiny_gpt();
  huge.vocabulary = 1'000'000'000'000;
  EXPECT_THAT(complaint(make_plan(huge, {.cuts = {2}}), options(1), ErrorKind::device),
              HasSubstr("of memory, this machine has"));
}

TEST_F(TrainerTest, NamesTheTokenThatTheNetworkLacks) {
  TrainingOptions options = this->options(1);
  options.data = {folder_.file("big.txt", "abc")};
  EXPECT_THAT(complaint(make_plan(tiny_gpt(), {.cuts = {2}}), options, ErrorKind::bad_input),
              HasSubstr("big.txt: token 0 (byte 0): expected below the network's vocabulary of 32, got 97"));
}

TEST_F(TrainerTest, AFailureInOneWorkerEndsAllOthers) {
  const auto fail = [](const StepReport& report) {
    if (report.step == 2) throw std::runtime_error("no more");
  };
  EXPECT_THROW(train(make_plan(tiny_gpt(), {.cuts = {1, 2, 3}}), options(1000), fail), std::runtime_error);
}

TEST_F(TrainerTest, HoldsTheMemoryThatWasForeseen) {
  for (const std::string schedule : {"gpipe", "1f1b"}) {
    const Plan plan = make_plan(tiny_llama(), {.cuts = {2}, .schedule = schedule});
    const Trace trace = train(plan, options(3));
    for (int rank = 0; rank < 2; ++rank) {
      const double foreseen = static_cast<double>(memory_need(plan, plan.lowered(), rank).total());
      const double held = trace.peak_memory[static_cast<std::size_t>(rank)].value();
      EXPECT_GE(held, foreseen * 0.99);
      EXPECT_LE(held, foreseen + 64 * 4096);  // pages, messages on their way
    }
  }
}

// A rank of its own, without threads around it.
TEST_F(TrainerTest, AStepInFullSwingTakesNoMemory) {
  Plan plan = make_plan(tiny_gpt(), {.cuts = {1, 2}, .stages_per_rank = 3});
  plan.schedule = {"custom", 3, 4, {{}}};
  for (int m = 0; m < 4; ++m) {
    for (int s = 0; s < 3; ++s) plan.schedule.ranks[0].push_back({ActionKind::forward, StageId{s}, MicrobatchId{m}});
  }
  for (int m = 0; m < 4; ++m) {
    for (int s = 2; s >= 0; --s) {
      plan.schedule.ranks[0].push_back({ActionKind::backward_input, StageId{s}, MicrobatchId{m}});
      plan.schedule.ranks[0].push_back({ActionKind::backward_weight, StageId{s}, MicrobatchId{m}});
    }
  }
  validate(plan, "plan");
  const LoweredSchedule schedule = plan.lowered();
  const TrainingOptions options = this->options(10);
  const TokenData data({text_}, 32, 8);
  ChannelNetwork network(1, {});
  const auto transport = network.endpoint(0);
  Worker worker(plan, schedule, options, data, *transport);
  const std::int64_t before = worker.allocations();
  for (int step = 1; step <= 3; ++step) worker.run_step(step, std::chrono::steady_clock::now());
  EXPECT_EQ(worker.allocations(), before);
}

}  // namespace
}  // namespace stagecraft
