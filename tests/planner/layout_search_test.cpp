#include "planner/layout_search.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "models/cluster/cluster.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/error.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "planner/layout_ranking.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

struct Case {
  std::string name;
  int layers = 6;
  int experts = 0;
  double memory = 80e9;  // bytes of a device
  bool fused = true;
  LayoutChoices choices;
  bool halves = false;                                                  // a narrow port between the two nodes
  bool sums = false;                                                    // FrameworkConstants::pipelined_sums
  std::vector<std::int32_t> stage_blocks = {}, recomputed_blocks = {};  // by hand
};

StepModel model_of(const Case& c) {
  TrainingJob job;
  job.network = *load_network(c.experts > 0 ? "mixtral-8x7b" : "gpt3-1.3b").transformer;
  job.network.layers = c.layers;
  job.network.experts = c.experts;
  job.global_batch = 12;
  job.sequence = 2048;
  job.fused_attention = c.fused;
  job.stage_blocks = c.stage_blocks;
  job.recomputed_blocks = c.recomputed_blocks;
  Machine machine = machine_of(load_cluster("dgx-a100:2"));
  machine.device.memory = Bytes(c.memory);
  machine.framework.pipelined_sums = c.sums ? 1 : 0;
  if (c.halves) {
    // Below one switch a node each.
    machine.levels.push_back(machine.levels.back());
    machine.levels[1].devices = 8;
    machine.levels[2].bandwidth = 1e9;
  }
  return {job, machine};
}

std::vector<Case> cases() {
  std::vector<Case> list;
  LayoutChoices eight;
  eight.devices = 8;
  eight.context = 1;
  list.push_back({"Roomy", 6, 0, 80e9, true, eight});
  list.push_back({"Tight", 6, 0, 9e9, true, eight});
  list.push_back({"Tighter", 7, 0, 6e9, false, eight});
  for (const FrameworkPreset& preset : load_calibration().frameworks) {
    if (!preset.runs ||
        (preset.name != "torchtitan" && preset.name != "megatron-deepspeed" && preset.name != "nanotron")) {
      continue;
    }
    LayoutChoices limited = eight;
    limited.abilities = preset.runs;
    std::string name = preset.name;
    std::erase(name, '-');
    list.push_back({"Of" + name, 6, 0, 9e9, false, limited});
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
  LayoutChoices experts;
  experts.devices = 4;
  experts.zero = 1;
  experts.overlap_tensor = false;
  list.push_back({"Experts", 3, 4, 60e9, true, experts});
  return list;
}

class LayoutSearch : public testing::TestWithParam<Case> {
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

// Visits points of the space at random.
template <class Visit>
void sample(const LayoutSpace& space, const Visit& visit) {
  std::mt19937 random(1);
  const auto pick = [&](std::size_t size) { return std::uniform_int_distribution<std::size_t>(0, size - 1)(random); };
  for (int i = 0; i < 2000; ++i) {
    const Widths& widths = space.widths()[pick(space.widths().size())];
    const auto sizes = space.microbatches_of(widths);
    const auto flags = space.sequence_parallel(widths);
    const auto orders = space.orders(widths);
    ParallelLayout layout =
        space.base(widths, sizes[pick(sizes.size())], flags[pick(flags.size())], orders[pick(orders.size())]);
    const auto& shapes = space.shapes(layout.pipeline, layout.microbatches);
    if (shapes.empty()) continue;
    const PipelineShape& shape = shapes[pick(shapes.size())];
    LayoutSpace::apply(shape, layout);
    const auto residences = space.residences(widths);
    LayoutSpace::apply(residences[pick(residences.size())], layout);
    visit(layout, space.recomputations(widths, space.most_layers(layout.pipeline, shape), layout.offload_activations));
  }
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
    const LayerShard block = model_.shard(layout).block;
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
    const LayerShard innermost = model_.shard(near).block;
    EXPECT_LE(innermost.tensor_forward, block.tensor_forward) << to_string(layout);
  });
}

INSTANTIATE_TEST_SUITE_P(Small, LayoutSearch, testing::ValuesIn(cases()),
                         [](const auto& each) { return each.param.name; });

TEST(LayoutRanking, OffloadsOnlyWhereThatIsFasterOrNeeded) {
  Case c;
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
  Case c;
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

TEST(LayoutSpace, HasOnlyTheStagesThatArePlacedByHand) {
  Case c;
  c.choices.devices = 8;
  c.choices.context = 1;
  c.stage_blocks = {1, 2, 2, 1};
  const StepModel model = model_of(c);
  const LayoutSpace space(model, c.choices);
  std::set<std::int32_t> pipelines;
  sample(space, [&](const ParallelLayout& layout, const auto&) {
    EXPECT_EQ(layout.stages(), 4) << to_string(layout);
    EXPECT_EQ(layout.first_stage_layers, 0);
    pipelines.insert(layout.pipeline);
    std::int64_t blocks = 0;
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) blocks += model.layers_of(layout, rank);
    EXPECT_EQ(blocks, 6) << to_string(layout);
  });
  EXPECT_EQ(pipelines, (std::set<std::int32_t>{2, 4}));
  ParallelLayout layout = parse_layout("p2 v2 b1 m12 interleaved-1f1b");
  EXPECT_EQ(model.layers_of(layout, 0), 1 + 2);
  layout.schedule = PipelineSchedule::zb_v;
  EXPECT_EQ(model.layers_of(layout, 0), 1 + 1);
  EXPECT_EQ(model.layers_of(layout, 1), 2 + 2);
}

TEST(LayoutSpace, KeepsTheEndsThatAreFixed) {
  Case c;
  c.choices.devices = 8;
  c.choices.context = 1;
  c.choices.last_stage_layers = no_layers;
  const StepModel model = model_of(c);
  std::set<std::int32_t> firsts;
  sample(LayoutSpace(model, c.choices), [&](const ParallelLayout& layout, const auto&) {
    EXPECT_GT(layout.pipeline, 1);
    EXPECT_EQ(model.layers_of(layout, layout.pipeline - 1), 0) << to_string(layout);
    firsts.insert(layout.first_stage_layers);
  });
  EXPECT_GT(firsts.size(), 1U) << "the other end is searched";
  c.choices.first_stage_layers = 4;
  c.choices.pipeline = 3;
  sample(LayoutSpace(model, c.choices), [&](const ParallelLayout& layout, const auto&) {
    EXPECT_EQ(model.layers_of(layout, 0), 4) << to_string(layout);
    EXPECT_EQ(model.layers_of(layout, 1), 2) << to_string(layout);
  });
}

TEST(LayoutSpace, GivesTheStageWithALargeHeadFewerBlocks) {
  TrainingJob job;
  job.network = *load_network("gpt3-1.3b").transformer;
  job.network.layers = 16;
  job.network.vocabulary = 250'000;  // the head takes as long as ten blocks
  job.network.tied_head = false;
  job.global_batch = 16;
  job.sequence = 2048;
  const StepModel model(job, machine_of(load_cluster("dgx-a100")));
  for (const int ranks : {2, 4}) {
    LayoutChoices choices;
    choices.devices = ranks;
    choices.pipeline = ranks;
    choices.schedule = PipelineSchedule::one_f_one_b;
    ParallelLayout layout = search_layouts(LayoutSpace(model, choices)).best.front().layout;
    EXPECT_EQ(layout.last_stage_layers, ranks == 2 ? 4 : 1) << to_string(layout);
    const Seconds uneven = model.estimate(layout).time;
    layout.first_stage_layers = layout.last_stage_layers = 0;
    EXPECT_LT(uneven, 0.9 * model.estimate(layout).time) << ranks;
  }
}

std::string complaint(const Case& c) {
  const StepModel model = model_of(c);
  try {
    const LayoutSpace space(model, c.choices);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(LayoutSpace, NamesChoicesThatNoLayoutCanMeet) {
  Case c;
  c.choices.devices = 8;
  c.choices.tensor = 5;
  EXPECT_EQ(complaint(c), "--tensor: tensor 5 does not divide 16 heads");
  c.choices = {};
  c.choices.devices = 8;
  c.choices.expert = 2;
  EXPECT_THAT(complaint(c), HasSubstr("--expert: expected 1, as the network has no experts, got 2"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.data = 5;
  EXPECT_THAT(complaint(c), HasSubstr("--global-batch: expected a multiple of replicas 5"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.tensor = 4;
  c.choices.pipeline = 4;
  EXPECT_THAT(complaint(c), HasSubstr("need 16 devices, but 8 can be used"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.pipeline = 2;
  c.choices.schedule = PipelineSchedule::one_f_one_b;
  c.choices.virtual_stages = 3;
  EXPECT_EQ(complaint(c), "--schedule: 1f1b has 1 stage a rank, not 3");
}

TEST(LayoutSpace, NamesChoicesThatContradictEachOther) {
  const auto complaint_about = [](auto choose) {
    Case c;
    c.choices.devices = 8;
    choose(c.choices);
    return complaint(c);
  };
  const auto recomputing = [&](Recompute mode, int layers) {
    return complaint_about([&](LayoutChoices& c) { c.recompute = mode, c.recomputed_layers = layers, c.pipeline = 1; });
  };
  const auto recompute_error = [](const char* rest) { return std::string("--recompute-layers: expected ") + rest; };
  EXPECT_EQ(recomputing(Recompute::none, 2), recompute_error("--recompute selective or full with it, got 2 with none"));
  EXPECT_EQ(recomputing(Recompute::none, fewest_layers),
            recompute_error("--recompute selective or full with it, got fewest with none"));
  EXPECT_EQ(recomputing(Recompute::full, fewest_layers),
            recompute_error("a number of blocks on a pipeline of 1, got fewest"));
  EXPECT_EQ(recomputing(Recompute::full, 6), "");
  EXPECT_EQ(recomputing(Recompute::full, 7), recompute_error("at most the 6 blocks of a rank, got 7"));
  EXPECT_EQ(
      complaint_about([](LayoutChoices& c) { c.offload_activations = true, c.recomputed_layers = 1, c.pipeline = 1; }),
      recompute_error("all blocks of a rank with --offload-activations on, got 1"));

  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.first_stage_layers = 2, c.pipeline = 1; }),
            "--first-stage-layers: expected a pipeline of 2 or more with it, got 2 on 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.last_stage_layers = 2, c.virtual_stages = 2; }),
            "--last-stage-layers: expected one stage a rank with it, got 2");
  EXPECT_EQ(
      complaint_about([](LayoutChoices& c) { c.first_stage_layers = 4, c.last_stage_layers = 1, c.pipeline = 2; }),
      "--last-stage-layers: expected the rest beside a first stage of 4 and 6 blocks, got 1");
  {
    Case c;
    c.choices.devices = 8;
    c.choices.recomputed_layers = listed_layers;
    c.choices.pipeline = 4;
    c.recomputed_blocks = {1, 0};
    EXPECT_EQ(complaint(c), recompute_error("a number for each of the 4 pipeline ranks, got 1,0"));
    c = {};
    c.choices.devices = 8;
    c.choices.pipeline = 3;
    c.stage_blocks = {2, 1, 1, 2};
    EXPECT_EQ(complaint(c), "--cuts: expected a multiple of pipeline 3 in stages, got 4");
  }

  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.sequence_parallel = true, c.tensor = 1; }),
            "--sequence-parallel: expected off, as a tensor-parallel width of 1 shards nothing, got on");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.sequence_parallel = true, c.tensor = 2; }), "");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 3, c.stages = 4; }),
            "--stages: expected a multiple of pipeline 3, got 4");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 2, c.virtual_stages = 4; }),
            "--virtual-stages: expected at most 3 on a pipeline of 2, as there are 6 blocks, got 4");
  EXPECT_EQ(complaint_about(
                [](LayoutChoices& c) { c.virtual_stages = 1, c.schedule = PipelineSchedule::interleaved_one_f_one_b; }),
            "--virtual-stages: expected at least 2 with interleaved-1f1b, got 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.zero = 1, c.data = c.context = 1; }),
            "--zero: expected 0 with one replica, which shares nothing out, got 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 1, c.virtual_stages = 2; }),
            "--virtual-stages: expected 1 on a pipeline of 1, got 2");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.virtual_stages = 2, c.schedule = PipelineSchedule::one_f_one_b; }),
            "--schedule: 1f1b has 1 stage a rank, not 2");
  EXPECT_EQ(complaint_about(
                [](LayoutChoices& c) { c.pipeline = 2, c.stages = 4, c.schedule = PipelineSchedule::one_f_one_b; }),
            "--schedule: 1f1b has 1 stage a rank, not 2");
}

// With equal stages, as the step model takes them.
TEST(LayoutSpace, TakesSchedulesWhoseClosedFormIsTheirMakespan) {
  int compared = 0;
  for (const auto& [name, schedule] : pipeline_schedule_names()) {
    for (const int ranks : {2, 3, 4, 8}) {
      for (const int chunks : {1, 2, 3}) {
        for (const int microbatches : {1, 2, 4, 6, 8, 16, 24}) {
          if (!refuse_schedule(schedule, ranks, chunks, microbatches).empty()) continue;
          if (!has_exact_form(schedule, ranks, microbatches)) continue;
          const StageTimes times{1, 1.25, 0.75};
          const ComputeSchedule made = make_schedule(name, {ranks, chunks, microbatches});
          const double makespan =
              clock_schedule(made, std::vector<StageTimes>(static_cast<std::size_t>(made.stages), times), 0).makespan;
          const double form =
              3.0 * chunks * microbatches + bubble_time(schedule, ranks, chunks, microbatches, {1, 1.25, 0.75});
          EXPECT_NEAR(form, makespan, 0.03 * makespan)
              << name << " P=" << ranks << " V=" << chunks << " M=" << microbatches;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 200);
}

TEST(LayoutSpace, ListsEveryPointOnce) {
  Case c;
  c.choices.devices = 4;
  c.choices.context = 1;
  const StepModel model = model_of(c);
  const LayoutSpace space(model, c.choices);
  for (const Widths& widths : space.widths()) {
    std::set<DimensionOrder> orders;
    for (const DimensionOrder& order : space.orders(widths)) EXPECT_TRUE(orders.insert(order).second);
    for (const std::int32_t microbatch : space.microbatches_of(widths)) {
      EXPECT_EQ(12 % (widths.data * microbatch), 0);
    }
  }
}

}  // namespace
}  // namespace stagecraft
