#include "planner/layout_search.hpp"

#include <gtest/gtest.h>

#include "models/cost/schedule_forms.hpp"
#include "planner/layout_ranking.hpp"
#include "tests/planner/layout_cases.hpp"

namespace stagecraft {
namespace {

std::vector<LayoutCase> cases() {
  std::vector<LayoutCase> list;
  LayoutChoices eight;
  eight.devices = 8;
  eight.context = 1;
  list.push_back({"Roomy", 6, 0, 80e9, true, eight});
  list.push_back({"Tight", 6, 0, 9e9, true, eight});
  list.push_back({"Tighter", 7, 0, 6e9, false, eight});
  for (const FrameworkPreset& preset : load_calibration().frameworks) {
    if (preset.name != "torchtitan" && preset.name != "megatron-deepspeed" && preset.name != "nanotron") continue;
    LayoutChoices limited = eight;
    limited.abilities = preset.runs;
    std::string name = "Of" + preset.name;
    std::erase(name, '-');
    list.push_back({name, 6, 0, 9e9, true, limited});
  }
  LayoutChoices sixteen;
  sixteen.devices = 16;
  sixteen.tensor = 2;
  sixteen.recompute = Recompute::none;
  list.push_back({"TwoNodes", 4, 0, 80e9, true, sixteen});
  list.push_back({"TwoHalves", 4, 0, 80e9, true, sixteen, true});
  LayoutChoices sharded = eight;
  sharded.zero = 3;
  list.push_back({"Sharded", 6, 0, 5e9, true, sharded});
  sharded.zero = 2;
  sharded.schedule = PipelineSchedule::interleaved_one_f_one_b;
  list.push_back({"ShardedGradients", 8, 0, 5e9, false, sharded});
  list.push_back({"SummedInThePipeline", 6, 0, 7e9, true, eight, true, true});
  list.push_back({"StagesByHand", 6, 0, 6e9, true, eight, false, false, {2, 0, 3, 1}});
  LayoutChoices ends = eight;
  ends.first_stage_layers = no_layers;
  list.push_back({"FirstStageByHand", 6, 0, 6e9, true, ends});
  LayoutChoices listed = eight;
  listed.recomputed_layers = listed_layers;
  list.push_back({"RecomputedByHand", 6, 0, 6e9, false, listed, false, false, {}, {2, 0, 1}});
  LayoutChoices timed = eight;
  timed.schedule = PipelineSchedule::hanayo;
  timed.zero = 1;
  list.push_back({"Hanayo", 8, 0, 6e9, true, timed});
  timed.schedule = PipelineSchedule::interleaved_one_f_one_b_torch;
  timed.zero.reset();
  timed.pipeline = 2;
  list.push_back({"TorchsInterleaved", 8, 0, 80e9, true, timed});
  timed.schedule = PipelineSchedule::zb_v_auto;
  timed.pipeline = 4;
  timed.recompute = Recompute::none;
  list.push_back({"PlannedZeroBubble", 8, 0, 6e9, true, timed});
  LayoutChoices experts;
  experts.devices = 4;
  experts.zero = 1;
  experts.overlap_tensor = false;
  list.push_back({"Experts", 3, 4, 60e9, true, experts});
  experts.devices = 8;
  experts.expert = 8;
  experts.context = 1;
  list.push_back({"FoldedExperts", 4, 8, 80e9, true, experts});
  LayoutChoices unlike = eight;
  unlike.tensor = 2;
  unlike.overlap_tensor = unlike.overlap_pipeline = true;
  list.push_back({"DenseBlocksFirst", 6, 8, 30e9, true, unlike, false, false, {}, {}, 2});
  unlike.zero = 3;
  list.push_back({"ShardedDenseBlocksFirst", 7, 4, 9e9, false, unlike, false, false, {}, {}, 3});
  unlike.zero = 1;
  list.push_back({"DenseBlocksByHand", 7, 4, 30e9, true, unlike, false, false, {1, 3, 0, 3}, {}, 2});
  return list;
}

class LayoutSearch : public testing::TestWithParam<LayoutCase> {
 protected:
  LayoutSearch() : model_(model_of(GetParam())), space_(model_, GetParam().choices) {}
  StepModel model_;
  LayoutSpace space_;
};

void expect_same(const std::vector<JudgedLayout>& actual, const std::vector<JudgedLayout>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(to_string(actual[i].layout), to_string(expected[i].layout)) << "place " << i;
    EXPECT_EQ(actual[i].estimate.time, expected[i].estimate.time) << "place " << i;
    EXPECT_EQ(actual[i].estimate.memory.total(), expected[i].estimate.memory.total()) << "place " << i;
  }
}

TEST_P(LayoutSearch, FindsWhatJudgingEveryPointFinds) {
  for (const auto& [name, objective] : layout_objective_names()) {
    SCOPED_TRACE(name);
    LayoutSearchOptions options;
    options.objective = objective;
    options.front = objective == LayoutObjective::time;
    const LayoutResult all = judge_all_layouts(space_, options);
    const LayoutResult found = search_layouts(space_, options);
    expect_same(found.best, all.best);
    expect_same(found.front, all.front);
    EXPECT_FALSE(all.best.empty());
    EXPECT_EQ(all.counts.points, space_.points());
    EXPECT_EQ(found.counts.points, space_.points());
    EXPECT_EQ(found.counts.sum(), space_.points());
    EXPECT_LT(found.counts.judged, all.counts.judged);
  }
}

TEST_P(LayoutSearch, LeavesOutOfACoarseFrontOnlyWhatItNearlyHas) {
  LayoutSearchOptions options;
  options.front = true;
  const LayoutResult exact = search_layouts(space_, options);
  options.front_tolerance = 0.05;
  const LayoutResult coarse = search_layouts(space_, options);
  EXPECT_LE(coarse.front.size(), exact.front.size());
  EXPECT_LE(coarse.counts.judged, exact.counts.judged);
  for (const JudgedLayout& point : exact.front) {
    EXPECT_TRUE(std::any_of(coarse.front.begin(), coarse.front.end(), [&](const JudgedLayout& other) {
      return other.estimate.time.value() <= point.estimate.time.value() * (1.05 + 1e-9) &&
             other.estimate.memory.total() <= point.estimate.memory.total() * (1.05 + 1e-9);
    })) << to_string(point.layout);
  }
}

TEST_P(LayoutSearch, IsTheSameWhateverTheThreads) {
  LayoutSearchOptions one, three;
  one.threads = 1;
  three.threads = 3;
  const LayoutResult a = search_layouts(space_, one), b = search_layouts(space_, three);
  expect_same(a.best, b.best);
  expect_same(a.near_misses, b.near_misses);
  EXPECT_EQ(a.counts, b.counts);
}

TEST_P(LayoutSearch, HoldsOnlyPointsThatTheModelAccepts) {
  sample(space_, [&](ParallelLayout layout, const std::vector<Recomputation>& recomputations) {
    for (const Recomputation& recomputation : recomputations) {
      LayoutSpace::apply(recomputation, layout);
      EXPECT_EQ(model_.refuse(layout), "") << to_string(layout);
    }
  });
}

TEST_P(LayoutSearch, NeverLosesByOverlapping) {
  sample(space_, [&](const ParallelLayout& layout, const auto&) {
    const auto settings = space_.overlaps(layout);
    const StepEstimate all = model_.estimate(settings.front());
    ParallelLayout most = layout;
    space_.overlap_all(most);
    EXPECT_EQ(settings.front(), most);
    for (const ParallelLayout& each : settings) {
      const StepEstimate estimate = model_.estimate(each);
      EXPECT_LE(all.time.value(), estimate.time.value() * (1 + 1e-12)) << to_string(each);
      EXPECT_LE(all.memory.total(), estimate.memory.total() * (1 + 1e-12)) << to_string(each);
    }
  });
}

TEST_P(LayoutSearch, NeverGainsTimeByShardingMoreThanTheOptimizer) {
  sample(space_, [&](ParallelLayout layout, const std::vector<Recomputation>& list) {
    if (layout.data * layout.context == 1 || layout.offload_activations || list.empty()) return;
    space_.overlap_all(layout);
    LayoutSpace::apply(list.front(), layout);
    double before = 0;
    for (const int zero : {1, 2, 3}) {
      layout.zero = static_cast<std::uint8_t>(zero);
      const double time = model_.estimate(layout).time.value();
      EXPECT_GE(time, before * (1 - 1e-12)) << to_string(layout);
      before = time;
      if (zero == 1) continue;
      ParallelLayout offloaded = layout;
      offloaded.offload_activations = true;
      for (const Recomputation& recomputation : list) {
        if (recomputation.layers < 0) continue;
        LayoutSpace::apply(recomputation, offloaded);
        EXPECT_GE(model_.estimate(offloaded).time.value(), time * (1 - 1e-12)) << to_string(offloaded);
      }
    }
  });
}

TEST_P(LayoutSearch, NeverGainsTimeNorLosesMemoryByRecomputing) {
  sample(space_, [&](ParallelLayout layout, const std::vector<Recomputation>& list) {
    std::optional<StepEstimate> none, before;
    Recompute mode = Recompute::none;
    for (const Recomputation& recomputation : list) {
      if (recomputation.layers < 0) continue;
      LayoutSpace::apply(recomputation, layout);
      const StepEstimate estimate = model_.estimate(layout);
      if (recomputation.mode != mode) before = none;
      mode = recomputation.mode;
      if (before && !layout.offload_activations) {
        EXPECT_GE(estimate.time.value(), before->time.value() * (1 - 1e-12)) << to_string(layout);
        EXPECT_LE(estimate.memory.total(), before->memory.total() * (1 + 1e-12)) << to_string(layout);
      }
      before = estimate;
      if (!none) none = estimate;
    }
  });
}

TEST_P(LayoutSearch, RecomputesByRankNoMoreThanTheFewestThatFitOnAll) {
  if (!GetParam().recomputed_blocks.empty()) return;  // as many as listed
  const auto all_fit = [&](const ParallelLayout& layout) {
    const Shard shard = model_.shard(layout);
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
      if (model_.memory(layout, shard, rank).total() > model_.machine().device.memory.value()) return false;
    }
    return true;
  };
  sample(space_, [&](ParallelLayout layout, const std::vector<Recomputation>& list) {
    for (const Recomputation& by_rank : list) {
      if (by_rank.layers != fewest_layers) continue;
      const auto fitting = std::find_if(list.begin(), list.end(), [&](const Recomputation& counted) {
        LayoutSpace::apply(counted, layout);
        return (counted.mode == by_rank.mode || counted.mode == Recompute::none) && counted.layers != fewest_layers &&
               all_fit(layout);
      });
      LayoutSpace::apply(by_rank, layout);
      EXPECT_EQ(model_.estimate(layout).fits, fitting != list.end()) << to_string(layout);
      if (fitting == list.end()) continue;
      const Shard shard = model_.shard(layout);
      for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
        EXPECT_LE(model_.recomputed_of(layout, shard, rank), fitting->layers) << to_string(layout);
      }
    }
  });
}

TEST_P(LayoutSearch, NeverTakesLessThanItsBlocksDo) {
  sample(space_, [&](ParallelLayout layout, const auto&) {
    space_.overlap_all(layout);
    const LayerShard block = model_.shard(layout).mean_block;
    const double layers = static_cast<double>(model_.job().network.layers) / layout.pipeline;
    const double busy = block.forward + block.backward_input + block.backward_weight + block.tensor_forward +
                        block.tensor_backward + block.context_forward + block.context_backward + block.expert_forward +
                        block.expert_backward;
    EXPECT_GE(model_.estimate(layout).time.value() * (1 + 1e-12), layout.microbatches * layers * busy)
        << to_string(layout);
    const double mean = static_cast<double>(model_.job().network.layers) / static_cast<double>(layout.stages());
    const StageWork stage{
        mean * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward),
        mean * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward),
        mean * block.backward_weight};
    const double bubble =
        bubble_time(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, stage);
    EXPECT_GE(model_.estimate(layout).time.value() * (1 + 1e-12), layout.microbatches * layers * busy + bubble)
        << to_string(layout);
    ParallelLayout near = layout;
    near.order = megatron_order;
    const LayerShard innermost = model_.shard(near).mean_block;
    EXPECT_LE(innermost.tensor_forward, block.tensor_forward) << to_string(layout);
  });
}

INSTANTIATE_TEST_SUITE_P(Small, LayoutSearch, testing::ValuesIn(cases()),
                         [](const auto& each) { return each.param.name; });

TEST(LayoutRanking, OffloadsOnlyWhereThatIsFasterOrNeeded) {
  LayoutCase c;
  c.choices.devices = 1;
  c.choices.recompute = Recompute::none;
  const StepModel model = model_of(c);
  JudgedLayout here = search_layouts(LayoutSpace(model, c.choices)).best.front();
  EXPECT_FALSE(here.layout.offload_activations);
  // At equal time, although it takes less memory, offloading loses; it wins where it is faster.
  JudgedLayout offloaded = here;
  offloaded.layout.offload_activations = true;
  offloaded.estimate.memory.activations /= 2;
  for (const auto objective : {LayoutObjective::time, LayoutObjective::cost}) {
    EXPECT_TRUE(is_before(objective, here, offloaded));
    JudgedLayout faster = offloaded;
    faster.estimate.time = 0.99 * here.estimate.time;
    EXPECT_TRUE(is_before(objective, faster, here));
  }
  EXPECT_TRUE(is_before(LayoutObjective::memory, offloaded, here));
}

TEST(ParetoFront, HoldsTheBestOfEveryNumberOfDevices) {
  LayoutCase c;
  c.choices.devices = 4;
  c.choices.context = 1;
  const StepModel model = model_of(c);
  const auto front = pareto_front(LayoutSpace(model, c.choices));
  for (const std::int64_t devices : {4, 2, 1}) {
    LayoutChoices choices = c.choices;
    choices.devices = devices;
    const JudgedLayout best = search_layouts(LayoutSpace(model, choices)).best.front();
    EXPECT_TRUE(std::any_of(front.begin(), front.end(), [&](const JudgedLayout& point) {
      return point.layout.devices() == devices && point.estimate.time == best.estimate.time;
    })) << devices;
  }
  for (const JudgedLayout& a : front) {
    for (const JudgedLayout& b : front) {
      const bool is_beaten = a.layout.devices() <= b.layout.devices() && a.estimate.time <= b.estimate.time &&
                             a.estimate.memory.total() <= b.estimate.memory.total();
      EXPECT_TRUE(!is_beaten || a.layout == b.layout) << to_string(a.layout) << " beats " << to_string(b.layout);
    }
  }
}

}  // namespace
}  // namespace stagecraft
