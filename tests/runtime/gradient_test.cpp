// The central promise: whatever the partition, schedule, recomputation or number of replicas, a step makes the
// gradients of one unpartitioned step over the same samples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/runtime/plans.hpp"
#include "tests/runtime/steps.hpp"

namespace stagecraft {
namespace {

void expect_same_bits(const Step& actual, const Step& expected) {
  EXPECT_EQ(actual.loss, expected.loss);
  EXPECT_EQ(actual.gradients, expected.gradients);
}

constexpr std::int64_t samples = 4;

Step unpartitioned(const Transformer& transformer, Recompute recompute = Recompute::none) {
  return take_step(
      make_plan(transformer, {.cuts = {}, .microbatches = 1, .microbatch = samples, .recompute = recompute}));
}

// All ways to cut four layers (embedding, two blocks, head) into stages.
std::vector<std::vector<std::int64_t>> all_cuts() {
  std::vector<std::vector<std::int64_t>> all;
  for (unsigned mask = 0; mask < 8; ++mask) {
    std::vector<std::int64_t> cuts;
    for (unsigned i = 0; i < 3; ++i) {
      if ((mask >> i) & 1U) cuts.push_back(i + 1);
    }
    all.push_back(cuts);
  }
  return all;
}

struct Case {
  std::string name;
  Transformer transformer;
};

class GradientTest : public testing::TestWithParam<Case> {};

TEST_P(GradientTest, EqualsThatOfOneUnpartitionedStepForEveryCutAndSchedule) {
  const Step expected = unpartitioned(GetParam().transformer);
  for (const std::string schedule : {"gpipe", "1f1b"}) {
    for (const auto& cuts : all_cuts()) {
      SCOPED_TRACE(fmt::format("{} with {} cuts", schedule, cuts.size()));
      const Plan plan = make_plan(GetParam().transformer, {.cuts = cuts, .microbatches = 4, .schedule = schedule});
      expect_close(take_step(plan), expected);
    }
  }
}

// The ends of a cut network with a tied table sum its gradient in another order; all others keep the order.
class UntiedGradientTest : public testing::TestWithParam<Case> {};

TEST_P(UntiedGradientTest, IsTheSameBitsForEveryCut) {
  for (const std::string schedule : {"gpipe", "1f1b"}) {
    const PlanShape shape{.cuts = {}, .microbatches = 4, .schedule = schedule};
    const Step expected = take_step(make_plan(GetParam().transformer, shape));
    for (const auto& cuts : all_cuts()) {
      PlanShape cut = shape;
      cut.cuts = cuts;
      expect_same_bits(take_step(make_plan(GetParam().transformer, cut)), expected);
    }
  }
}

TEST_P(GradientTest, IsTheSameBitsWithRecomputation) {
  for (const auto& cuts : all_cuts()) {
    const Step expected = take_step(make_plan(GetParam().transformer, {.cuts = cuts}));
    for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
      expect_same_bits(take_step(make_plan(GetParam().transformer, {.cuts = cuts, .recompute = recompute})), expected);
    }
  }
}

TEST_P(GradientTest, EqualsTheUnpartitionedOneWithReplicas) {
  const Step expected = unpartitioned(GetParam().transformer);
  for (const int replicas : {2, 4}) {
    for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{}, {1}, {2, 3}}) {
      const PlanShape shape{.cuts = cuts, .microbatches = samples / replicas, .replicas = replicas};
      expect_close(take_step(make_plan(GetParam().transformer, shape)), expected);
    }
  }
}

TEST_P(GradientTest, IsTheSameBitsWithTheWeightGradientSplitOff) {
  for (const auto& cuts : all_cuts()) {
    for (const Recompute recompute : {Recompute::none, Recompute::full}) {
      Plan plan = make_plan(GetParam().transformer, {.cuts = cuts, .recompute = recompute});
      const Step expected = take_step(plan);
      plan.schedule = split_backwards(plan.schedule);
      if (GetParam().transformer.tied_head && cuts.empty()) {
        expect_close(take_step(plan), expected);
      } else {
        expect_same_bits(take_step(plan), expected);
      }
    }
  }
}

// Two stages a rank: stage s on rank s % 2, all forwards, then all backwards.
TEST_P(GradientTest, EqualsTheUnpartitionedOneWithSeveralStagesARank) {
  const Step expected = unpartitioned(GetParam().transformer);
  for (const int stages_per_rank : {2, 4}) {
    Plan plan = make_plan(GetParam().transformer, {.cuts = {1, 2, 3}, .stages_per_rank = stages_per_rank});
    const int ranks = 4 / stages_per_rank;
    plan.schedule = {"custom", 4, static_cast<int>(samples), {}};
    plan.schedule.ranks.resize(static_cast<std::size_t>(ranks));
    for (const bool forward : {true, false}) {
      for (int m = 0; m < samples; ++m) {
        for (int i = 0; i < 4; ++i) {
          const int stage = forward ? i : 3 - i;
          plan.schedule.ranks[static_cast<std::size_t>(stage % ranks)].push_back(
              {forward ? ActionKind::forward : ActionKind::backward, StageId{stage}, MicrobatchId{m}});
        }
      }
    }
    expect_close(take_step(plan), expected);
  }
}

Transformer regression() {
  Transformer t = tiny_gpt();
  t.head = HeadKind::regression;
  return t;
}

std::string network_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Networks, GradientTest,
                         testing::Values(Case{"gpt", tiny_gpt()}, Case{"tied_gpt", tiny_gpt(true)},
                                         Case{"llama", tiny_llama()}, Case{"tied_llama", tiny_llama(true)},
                                         Case{"regression", regression()}),
                         network_name);
INSTANTIATE_TEST_SUITE_P(Networks, UntiedGradientTest,
                         testing::Values(Case{"gpt", tiny_gpt()}, Case{"llama", tiny_llama()},
                                         Case{"regression", regression()}),
                         network_name);

}  // namespace
}  // namespace stagecraft
