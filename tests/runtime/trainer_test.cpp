#include "runtime/trainer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "models/files.hpp"
#include "runtime/safetensors.hpp"
#include "tests/runtime/plans.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using Tensors = std::map<std::string, std::vector<float>>;

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

}  // namespace
}  // namespace stagecraft
