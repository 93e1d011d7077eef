// Asynchronous schedules against a plain loop that has one copy of the network and applies the update formula: no
// ranks, no messages, no order of actions.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "models/error.hpp"
#include "runtime/cpu/stage.hpp"
#include "runtime/memory_need.hpp"
#include "runtime/token_data.hpp"
#include "runtime/weight_versions.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {
namespace {

constexpr double rate = 0.5;  // large, so that a version too old or new shows

Transformer network() {
  Transformer t = tiny_gpt();
  t.layers = 4;
  return t;
}

TrainingOptions plain_descent(const TemporaryFolder& folder) {
  TrainingOptions options;
  options.steps = 1;
  options.data = {folder.file("text.txt", sample_text())};
  options.optimizer.learning_rate = rate;
  options.optimizer.schedule = LearningRateSchedule::constant;
  options.optimizer.momentum = 0;
  options.optimizer.weight_decay = 0;
  options.optimizer.clip_norm.reset();
  options.checkpoint_directory = folder.path();
  options.oversubscribe = true;
  options.peer_timeout = std::chrono::seconds(20);
  return options;
}

// The weights after the step, from the runtime.
Tensors train_step(Plan plan, const TemporaryFolder& folder) {
  plan.optimizer = Optimizer::sgd;
  train(plan, plain_descent(folder));
  const SafetensorsReader reader(checkpoint_path(folder.path(), 1));
  Tensors weights;
  for (const TensorInfo& tensor : reader.tensors()) {
    if (tensor.name.starts_with("velocity.")) continue;
    auto& data = weights[tensor.name];
    data.resize(static_cast<std::size_t>(tensor.elements()));
    reader.read(tensor.name, tensor.shape, data);
  }
  return weights;
}

// version(s, m): how many updates stage s has made to the weights that micro-batch m sees there.
template <class Version>
Tensors plain_loop(const Plan& plan, const TemporaryFolder& folder, Version&& version) {
  const Transformer& t = *plan.network.transformer;
  StageSpec spec = stage_spec(plan, 0);
  spec.layers = {0, t.layers + 2};
  spec.microbatches = 1;
  spec.optimizer = Optimizer::sgd;
  MemoryPool pool;
  cpu::Stage whole(spec, std::nullopt, pool);
  const Buffer workspace = pool.allocate(whole.layout().workspace, "workspace");
  whole.set_workspace(workspace.data());
  whole.parameters().initialize(1);
  const TokenData data({folder.path() / "text.txt"}, t.vocabulary, plan.batch.sequence);

  std::map<std::string, int> stage_of;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    for (auto layer = plan.stages[s].layers.first; layer < plan.stages[s].layers.last; ++layer) {
      for (const auto& p : layer_parameters(t, layer)) stage_of[p.name] = static_cast<int>(s);
    }
  }
  std::map<std::string, std::vector<std::vector<float>>> history;  // by tensor and version
  for (const auto& entry : whole.parameters().entries()) {
    const auto values = whole.parameters().values(entry);
    history[entry.parameter.name] = {{values.begin(), values.end()}};
  }
  for (int m = 0; m < plan.schedule.microbatches; ++m) {
    for (const auto& entry : whole.parameters().entries()) {
      const auto& versions = history[entry.parameter.name];
      const auto& seen = versions.at(static_cast<std::size_t>(version(stage_of[entry.parameter.name], m)));
      std::copy(seen.begin(), seen.end(), whole.parameters().values(entry).begin());
    }
    whole.open(0);
    data.sample(1, 1, m, whole.tokens(0), whole.targets(0));
    whole.forward(0, nullptr);
    whole.backward(0, nullptr, nullptr);
    if ((m + 1) % plan.schedule.update_group != 0) continue;
    for (const auto& entry : whole.parameters().entries()) {
      auto& versions = history[entry.parameter.name];
      const auto gradient = whole.parameters().gradients(entry);
      std::vector<float> next = versions.back();
      for (std::size_t i = 0; i < next.size(); ++i) next[i] -= static_cast<float>(rate) * gradient[i];
      versions.push_back(std::move(next));
      std::fill(gradient.begin(), gradient.end(), 0.0F);
    }
  }
  Tensors weights;
  for (const auto& [name, versions] : history) weights[name] = versions.back();
  return weights;
}

void expect_same_weights(const Tensors& actual, const Tensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, weights] : expected) {
    std::vector<float> difference = actual.at(name);
    for (std::size_t i = 0; i < weights.size(); ++i) difference[i] -= weights[i];
    EXPECT_LE(norm(difference), 1e-5 * norm(weights)) << name;
  }
}

template <class Version>
void expect_formula(const ComputeSchedule& schedule, Version&& version) {
  const TemporaryFolder folder;
  const Plan plan = make_scheduled_plan(network(), schedule);
  const Tensors trained = train_step(plan, folder);
  expect_same_weights(trained, plain_loop(plan, folder, version));
}

TEST(PipeDream, StashesTheWeightsOfEachForward) {
  for (const int p : {1, 2, 3}) {
    SCOPED_TRACE(p);
    const ComputeSchedule schedule = make_schedule("pipedream", {p, 1, 9});
    // w(t+1) = w(t) - lr grad f(w_0(t-P+1), ..., w_{P-1}(t)): stage s is P-1-s updates behind.
    expect_formula(schedule, [p](int s, int m) { return std::max(0, m - (p - 1 - s)); });
    for (std::int32_t s = 0; s < p; ++s) EXPECT_EQ(most_versions(schedule, StageId{s}), p - 1 - s);
  }
}

TEST(PipeDream, WithVerticalSyncUsesOneVersionOnAllStages) {
  for (const int p : {2, 3}) {
    ComputeSchedule schedule = make_schedule("pipedream", {p, 1, 9});
    schedule.updates = WeightUpdates::vertical_sync;
    expect_formula(schedule, [p](int, int m) { return std::max(0, m - (p - 1)); });
  }
}

TEST(PipeDream2BW, IsOneUpdateBehindEverywhere) {
  for (const int p : {1, 2, 3}) {
    for (const int group : {3, 4}) {
      SCOPED_TRACE(fmt::format("{} ranks, {} micro-batches an update", p, group));
      ScheduleShape shape{p, 1, 4 * group};
      shape.group = group;
      const ComputeSchedule schedule = make_schedule("pipedream-2bw", shape);
      expect_formula(schedule, [group](int, int m) { return std::max(0, m / group - 1); });
      for (std::int32_t s = 0; s < p; ++s) EXPECT_LE(most_versions(schedule, StageId{s}), 1);
    }
  }
}

TEST(PipeDream, DiffersFromSynchronousTraining) {
  const TemporaryFolder folder;
  folder.file("text.txt", sample_text());
  const Plan plan = make_scheduled_plan(network(), make_schedule("pipedream", {3, 1, 9}));
  const Tensors stale = plain_loop(plan, folder, [](int s, int m) { return std::max(0, m - (2 - s)); });
  const Tensors fresh = plain_loop(plan, folder, [](int, int m) { return m; });
  const auto& a = stale.at("block.0.mlp.up.weight");
  auto b = fresh.at("block.0.mlp.up.weight");
  for (std::size_t i = 0; i < a.size(); ++i) b[i] -= a[i];
  EXPECT_GT(norm(b), 1e-3 * norm(a));  // else the tests above would prove nothing
}

TEST(WeightVersions, RefuseAVersionThatDoesNotExistYet) {
  // All forwards first: the second group's forward comes before the first update.
  ComputeSchedule schedule = make_schedule("gpipe", {2, 1, 6});
  schedule.updates = WeightUpdates::two_buffered;
  schedule.update_group = 2;
  EXPECT_THROW(weight_versions(schedule, StageId{0}), Error);
}

}  // namespace
}  // namespace stagecraft
