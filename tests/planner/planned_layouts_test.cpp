#include "planner/planned_layouts.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/cost/step_model.hpp"

namespace stagecraft {
namespace {

using testing::SizeIs;

class PlanInFull : public testing::Test {
 protected:
  std::vector<JudgedLayout> judged(const std::vector<std::string>& layouts) const {
    std::vector<JudgedLayout> all;
    for (const std::string& text : layouts) {
      const ParallelLayout layout = parse_layout(text);
      all.push_back({layout, model_.estimate(layout)});
    }
    return all;
  }
  PlannedLayouts plan(const std::vector<std::string>& layouts, const PlanningOptions& options) const {
    return plan_in_full(model_, network_, cluster_, judged(layouts), options);
  }

  Network network_ = load_network("gpt3-1.3b");
  Cluster cluster_ = load_cluster("dgx-a100:2");
  StepModel model_{{*network_.transformer, 64, 2048, DataType::bf16}, machine_of(cluster_)};
};

TEST_F(PlanInFull, RanksByTheObjectiveOfThePlans) {
  const std::vector<std::string> layouts{"p2 t2 d4 b1 m16 1f1b", "p1 t1 d16 b1 m4 1f1b overlap=gradients",
                                         "p1 t1 d4 b1 m16 1f1b overlap=gradients", "p2 t4 d2 b1 m32 1f1b sp"};
  for (const LayoutObjective objective : {LayoutObjective::time, LayoutObjective::cost, LayoutObjective::memory}) {
    const auto planned = plan(layouts, {.objective = objective, .keep = 4, .confirm = 4});
    ASSERT_THAT(planned.best, SizeIs(4));
    const auto value = [&](const PlannedLayout& layout) {
      if (objective == LayoutObjective::memory) return layout.memory().value();
      const double devices = objective == LayoutObjective::cost ? layout.judged.layout.devices() : 1;
      return devices * layout.step().value();
    };
    for (std::size_t i = 1; i < 4; ++i) EXPECT_LE(value(planned.best[i - 1]), value(planned.best[i])) << i;
    for (const PlannedLayout& layout : planned.best) EXPECT_EQ(layout.step(), *layout.plan.prediction.simgrid_step);
  }
}

TEST_F(PlanInFull, LeavesOutWhatDoesNotFitWhileOthersFit) {
  const std::vector<std::string> layouts{"p2 t2 d4 b1 m16 1f1b", "p4 t2 d2 b1 m32 1f1b", "p1 t4 d4 b1 m16 1f1b"};
  PlanningOptions options{.keep = 2, .confirm = 0};
  options.memory = [](const Plan& plan) {
    return plan.ranks() == 2 ? std::vector<Bytes>{Bytes(1e12), Bytes(1)} : std::vector<Bytes>{};
  };
  const auto planned = plan(layouts, options);
  EXPECT_EQ(planned.too_large, 1);
  ASSERT_THAT(planned.best, SizeIs(2));
  for (const PlannedLayout& layout : planned.best) EXPECT_NE(layout.judged.layout.pipeline, 2);

  options.memory = [](const Plan& plan) {
    return std::vector<Bytes>(static_cast<std::size_t>(plan.ranks()), Bytes(1e12));
  };
  const auto none = plan(layouts, options);
  EXPECT_EQ(none.too_large, 0);
  ASSERT_THAT(none.best, SizeIs(2)) << "none fits: the caller says so";
  EXPECT_EQ(none.best.front().memory(), Bytes(1e12));
}

TEST_F(PlanInFull, ScalesToOtherNumbersOfDevices) {
  LayoutChoices choices;
  choices.devices = 16;
  choices.tensor = 2;
  const std::vector<int> devices{4, 8, 16};
  const auto strong = scale(model_, choices, LayoutObjective::time, devices, false);
  const auto weak = scale(model_, choices, LayoutObjective::time, devices, true);
  ASSERT_THAT(strong, SizeIs(3));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(strong[i].batch, 64);
    EXPECT_EQ(weak[i].batch, 64 << i);
    ASSERT_TRUE(strong[i].best);
    EXPECT_EQ(strong[i].best->layout.devices(), devices[i]);
    if (i == 0) continue;
    EXPECT_LT(strong[i].best->estimate.time, strong[i - 1].best->estimate.time);
  }
  choices.tensor = 8;
  const auto some = scale(model_, choices, LayoutObjective::time, devices, false);
  EXPECT_FALSE(some[0].best) << "four devices are no eight";
  EXPECT_TRUE(some[1].best);
  EXPECT_THROW(scale(model_, choices, LayoutObjective::time, std::vector{32}, false), Error);
  EXPECT_THROW(scale(model_, choices, LayoutObjective::time, std::vector{6, 8}, true), Error);
}

}  // namespace
}  // namespace stagecraft
