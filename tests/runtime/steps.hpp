// One step of a plan, and what it made.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/checkpoint.hpp"
#include "runtime/safetensors.hpp"
#include "runtime/trainer.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {

using Tensors = std::map<std::string, std::vector<float>>;

// Of a checkpoint, those whose names start so.
inline Tensors tensors_in(const std::filesystem::path& checkpoint, const std::string& prefix = "") {
  Tensors tensors;
  const SafetensorsReader reader(checkpoint);
  for (const TensorInfo& tensor : reader.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    auto& data = tensors[tensor.name];
    data.resize(static_cast<std::size_t>(tensor.elements()));
    reader.read(tensor.name, tensor.shape, data);
  }
  return tensors;
}

struct Step {
  double loss = 0;
  Tensors gradients;
  std::vector<TraceEvent> events;
};

// One step of plain gradient descent: the velocity in its checkpoint is the gradient, to the bit.
inline Step take_step(Plan plan, Backend backend = Backend::cpu) {
  const TemporaryFolder folder;
  plan.optimizer = Optimizer::sgd;
  TrainingOptions options;
  options.backend = backend;
  options.steps = 1;
  options.data = {folder.file("text.txt", sample_text())};
  options.optimizer.weight_decay = 0;
  options.optimizer.clip_norm.reset();
  options.checkpoint_directory = folder.path();
  options.oversubscribe = true;
  options.peer_timeout = std::chrono::seconds(20);
  Step step;
  Trace trace = train(plan, options);
  step.loss = trace.losses.at(0);
  step.events = std::move(trace.events);
  step.gradients = tensors_in(checkpoint_path(folder.path(), 1), "velocity.");
  return step;
}

inline double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

inline void expect_close(const Step& actual, const Step& expected, double tolerance = 1e-5) {
  EXPECT_NEAR(actual.loss, expected.loss, 0.1 * tolerance * std::max(1.0, std::abs(expected.loss)));
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    const auto& other = actual.gradients.at(name);
    std::vector<float> difference(gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) difference[i] = gradient[i] - other[i];
    EXPECT_GT(norm(gradient), 1e-8) << name;
    EXPECT_LE(norm(difference), tolerance * norm(gradient)) << name;
  }
}

// Steps at a constant rate, with clipping that a short training feels.
inline TrainingOptions clipped_training(const std::filesystem::path& data, std::int64_t steps) {
  TrainingOptions options;
  options.data = {data};
  options.oversubscribe = true;
  options.peer_timeout = std::chrono::seconds(30);
  options.optimizer.schedule = LearningRateSchedule::constant;
  options.optimizer.clip_norm = 0.5;
  options.steps = steps;
  return options;
}

}  // namespace stagecraft
