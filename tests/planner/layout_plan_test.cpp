#include "planner/layout_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "planner/layout_search.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

class LayoutPlan : public testing::Test {
 protected:
  LayoutPlan() {
    network_.transformer->layers = 16;
    network_.graph = build_graph(*network_.transformer);
  }
  StepModel model() const { return {{*network_.transformer, 64, 2048, DataType::bf16}, machine_of(cluster_)}; }
  Plan plan_of(const std::string& layout) const { return make_plan(model(), network_, cluster_, parse_layout(layout)); }

  Network network_ = load_network("gpt3-1.3b");
  Cluster cluster_ = load_cluster("dgx-a100:2");
};

// Stages of equal blocks, the ends with embedding and head beside them.
const char* const even_layouts[] = {"p1 t1 d16 b1 m4 1f1b overlap=gradients",
                                    "p2 t2 d4 b1 m16 1f1b sp zero1",
                                    "p4 t4 d1 b1 m64 1f1b full",
                                    "p4 v2 t2 d2 b1 m32 interleaved-1f1b sp selective overlap=pipeline",
                                    "p8 t1 d2 b2 m16 gpipe zero1 overlap=gradients,parameters",
                                    "p4 t1 c2 d2 b1 m32 zb-h1",
                                    "p2 t8 d1 b4 m16 1f1b full:3",
                                    "p4 t1 d4 b4 m4 1f1b full:fewest",
                                    "p1 t2 d8 b1 m8 1f1b zero3 overlap=gradients,parameters"};

TEST_F(LayoutPlan, HasATimelineNearItsClosedForm) {
  for (const char* text : even_layouts) {
    const Plan plan = plan_of(text);
    const double closed = plan.prediction.closed_form_step->value();
    EXPECT_NEAR(plan.prediction.timeline_step->value(), closed, 0.1 * closed) << text;
  }
}

// Blocks with experts behind dense ones: each stage has those of its place.
TEST_F(LayoutPlan, PricesStagesOfUnlikeBlocks) {
  network_ = load_network("deepseek-v2");
  Transformer& t = *network_.transformer;
  t.layers = 12;
  t.dense_layers = 3;
  t.hidden = 2048;
  t.heads = t.kv_heads = 16;
  t.experts = 8;
  network_.graph = build_graph(t);
  const auto rank_of = [](const PlanStage& stage) { return static_cast<std::size_t>(stage.rank.value); };
  for (const char* text : {"p2 v2 d4 b1 m16 hanayo e4", "p2 v2 d4 b1 m16 zb-v e4", "p5 d2 b1 m32 last=1 gpipe",
                           "p2 v5 d2 b1 m32 interleaved-1f1b"}) {
    const Plan plan = plan_of(text);
    std::vector<std::int64_t> dense(plan.devices.front().size());
    for (const PlanStage& stage : plan.stages) {
      for (std::int64_t layer = stage.layers.first; layer < stage.layers.last; ++layer) {
        if (network_.graph[static_cast<LayerId>(layer)].kind == "dense block") ++dense[rank_of(stage)];
      }
    }
    for (std::size_t rank = 0; rank < dense.size(); ++rank) {
      EXPECT_EQ(model().dense_layers_of(parse_layout(text), static_cast<std::int32_t>(rank)), dense[rank]) << text;
    }
  }
  for (const char* text :
       {"p2 t2 d4 b1 m16 e4 1f1b sp zero1", "p3 t1 d4 b1 m16 1f1b full:2",
        "p4 t2 d2 b1 m32 e4 1f1b sp zero1 overlap=pipeline", "p2 v3 t1 d4 b1 m16 e4 interleaved-1f1b overlap=pipeline",
        "p4 t1 d4 e4 b1 m16 1f1b zero3"}) {
    const StepModel step = model();
    const ParallelLayout layout = parse_layout(text);
    ASSERT_EQ(step.refuse(layout), "") << text;
    const Plan plan = make_plan(step, network_, cluster_, layout);
    const double closed = plan.prediction.closed_form_step->value();
    EXPECT_NEAR(plan.prediction.timeline_step->value(), closed, 0.12 * closed) << text;
    const double needed = step.estimate(layout).memory.total();
    const auto& peaks = plan.prediction.peak_memory;
    EXPECT_NEAR(std::max_element(peaks.begin(), peaks.end())->value(), needed, 0.1 * needed) << text;
    const Shard shard = step.shard(layout);
    double forward = 0;
    for (const PlanStage& stage : plan.stages) forward += stage.cost.forward.value();
    const auto time = [](const LayerShard& layer) {
      return layer.forward + layer.tensor_forward + layer.expert_forward;
    };
    const double expected =
        3 * time(shard.dense_block) + 9 * time(shard.block) + time(shard.embedding) + time(shard.head);
    if (layout.zero < 3) {
      EXPECT_NEAR(forward, expected, 1e-9 * expected) << text;
    }
  }
}

// Weights and gradients that replicas exchange for every micro-batch lengthen its forwards and backwards.
const char* const sharded_layouts[] = {"p4 t1 d4 b1 m16 1f1b zero2",
                                       "p4 t1 d4 b1 m16 1f1b zero3",
                                       "p4 t1 d4 b1 m16 1f1b zero3 full overlap=gradients,parameters",
                                       "p4 t1 d4 b1 m16 gpipe zero3",
                                       "p4 v2 t1 d4 b1 m16 interleaved-1f1b zero3 overlap=parameters",
                                       "p4 t1 d4 b1 m16 zb-h1 zero3",
                                       "p4 t1 d4 b1 m16 first=3 last=3 dualpipe zero2 overlap=pipeline",
                                       "p4 v4 t1 d4 b1 m16 looped-bfs zero3"};

TEST_F(LayoutPlan, ExchangesWeightsAndGradientsForEveryMicrobatch) {
  network_.transformer->tied_head = false;
  network_.graph = build_graph(*network_.transformer);
  for (const char* text : sharded_layouts) {
    const Plan plan = plan_of(text);
    const double closed = plan.prediction.closed_form_step->value();
    const double timeline = plan.prediction.timeline_step->value();
    EXPECT_NEAR(timeline, closed, 0.06 * closed) << text;
    EXPECT_NEAR(simgrid_step(plan).value(), timeline, 0.03 * timeline) << text;
    const double needed = model().estimate(parse_layout(text)).memory.total();
    const auto& peaks = plan.prediction.peak_memory;
    EXPECT_NEAR(std::max_element(peaks.begin(), peaks.end())->value(), needed, 0.1 * needed) << text;
  }
  const auto first = [&](const char* text) { return plan_of(text).stages.front().cost; };
  const StageCost once = first("p4 t1 d4 b1 m16 1f1b zero1"), each = first("p4 t1 d4 b1 m16 1f1b zero3");
  EXPECT_GT(each.forward, once.forward);
  EXPECT_GT(each.backward_input, once.backward_input);
  EXPECT_EQ(each.reduced_gradients(), Bytes(0)) << "nothing is left to reduce at the end";
  EXPECT_GT(once.reduced_gradients(), Bytes(0));
  const StageCost by_stage = first("p4 v4 t1 d4 b1 m16 looped-bfs zero3");
  EXPECT_EQ(by_stage.forward, first("p4 v4 t1 d4 b1 m16 looped-bfs").forward) << "once for all micro-batches";
  EXPECT_GT(by_stage.reduced_gradients(), Bytes(0));
}

// Schedules without a closed form are timed, so that the same holds for them.
TEST_F(LayoutPlan, TimesSchedulesWithoutAClosedForm) {
  for (const char* text :
       {"p4 v2 t1 d4 b1 m16 hanayo overlap=pipeline", "p4 v2 t2 d2 b1 m32 bitpipe sp zero1 overlap=pipeline",
        "p4 t2 d2 b1 m32 seq-1f1b sp", "p4 v4 t1 d4 b1 m16 interleaved-1f1b-torch overlap=pipeline",
        "p4 v2 t1 d4 b1 m16 zb-v-auto overlap=pipeline", "p4 v2 t1 d4 b1 m16 searched zero3 overlap=pipeline",
        "p4 t1 d4 b1 m16 searched full:2 overlap=pipeline"}) {
    const StepModel step = model();
    const ParallelLayout layout = parse_layout(text);
    ASSERT_EQ(step.refuse(layout), "") << text;
    const Plan plan = make_plan(step, network_, cluster_, layout);
    const StepEstimate estimate = step.estimate(layout);
    EXPECT_GT(estimate.terms.bubble, 0) << text;
    EXPECT_LE(step.least_estimate(layout, step.shard(layout)).time, estimate.time) << text;
    const double closed = estimate.time.value();
    EXPECT_NEAR(plan.prediction.timeline_step->value(), closed, 0.12 * closed) << text;
    EXPECT_NEAR(simgrid_step(plan).value(), plan.prediction.timeline_step->value(), 0.05 * closed) << text;
    if (layout.schedule == PipelineSchedule::searched) continue;  // takes what memory is left
    const auto& peaks = plan.prediction.peak_memory;
    const double needed = estimate.memory.total();
    EXPECT_NEAR(std::max_element(peaks.begin(), peaks.end())->value(), needed, 0.12 * needed) << text;
  }
  EXPECT_THAT(model().refuse(parse_layout("p4 v3 d4 b1 m16 hanayo")), HasSubstr("even number of stages a rank"));
  EXPECT_THAT(model().refuse(parse_layout("p1 v2 d16 b1 m4 hanayo")), HasSubstr("at least 2 ranks"));
}

TEST_F(LayoutPlan, NeedsTheMemoryThatItsClosedFormSays) {
  for (const char* text : even_layouts) {
    const Plan plan = plan_of(text);
    const double needed = model().estimate(parse_layout(text)).memory.total();
    const auto& peaks = plan.prediction.peak_memory;
    EXPECT_NEAR(std::max_element(peaks.begin(), peaks.end())->value(), needed, 0.1 * needed) << text;
  }
}

TEST_F(LayoutPlan, CountsTheHeadOnceWhereActivationsAreOffloaded) {
  for (const char* text : {"p1 t1 d16 b4 m1 1f1b offload=activations", "p4 t1 d4 b1 m16 1f1b full offload=activations",
                           "p4 v2 t2 d2 b1 m32 interleaved-1f1b sp offload=activations"}) {
    const Plan plan = plan_of(text);
    const double needed = model().estimate(parse_layout(text)).memory.total();
    const auto& peaks = plan.prediction.peak_memory;
    EXPECT_NEAR(std::max_element(peaks.begin(), peaks.end())->value(), needed, 1e-9 * needed) << text;
  }
}

// A rank's stages: 3 blocks on 2, of which the one with more micro-batches in flight gets fewer.
TEST_F(LayoutPlan, NeedsNoMoreMemoryWhereARanksStagesAreUneven) {
  network_.transformer->layers = 12;
  network_.graph = build_graph(*network_.transformer);
  const char* const text = "p4 v2 t2 d2 b1 m32 interleaved-1f1b sp";
  const Plan plan = plan_of(text);
  const double needed = model().estimate(parse_layout(text)).memory.total();
  const auto& peaks = plan.prediction.peak_memory;
  EXPECT_LE(std::max_element(peaks.begin(), peaks.end())->value(), 1.001 * needed);
}

// What the backward does not hide is summed once a rank, however many stages it has.
TEST_F(LayoutPlan, SumsTheSameGradientsWithSeveralStagesARank) {
  cluster_ = load_cluster("dgx-a100:4");
  const auto step_after_backward = [&](const char* text) {
    const Plan plan = plan_of(text);
    Bytes reduced;
    for (const PlanStage& stage : plan.stages) {
      if (stage.rank.value != 0) continue;
      reduced += stage.cost.reduced_gradients();
    }
    EXPECT_NEAR(simgrid_step(plan).value(), plan.prediction.timeline_step->value(),
                0.05 * plan.prediction.timeline_step->value())
        << text;
    return reduced.value();
  };
  const double one = step_after_backward("p2 t2 d8 b1 m8 1f1b");
  EXPECT_GT(one, 0);
  EXPECT_NEAR(step_after_backward("p2 v4 t2 d8 b1 m8 interleaved-1f1b"), one, 0.01 * one);
}

TEST_F(LayoutPlan, ReadsBackAsTheSameLayout) {
  for (const char* text : even_layouts) {
    const Plan plan = plan_of(text);
    const Json json = to_json(plan);
    const Plan back = plan_from_json(JsonValue(json, "plan.json"));
    EXPECT_EQ(back.layout, plan.layout) << text;
    EXPECT_EQ(back.devices, plan.devices) << text;
    EXPECT_EQ(back.stages, plan.stages) << text;
    ParallelLayout layout = parallel_layout(back), expected = parse_layout(text);
    layout.first_stage_layers = layout.last_stage_layers = 0;  // a plan has every stage in full
    if (expected.recompute == Recompute::none) expected.recomputed_layers = layout.recomputed_layers;
    EXPECT_EQ(to_string(layout), to_string(expected));
  }
}

TEST_F(LayoutPlan, IsPricedAlikeWhenWrittenByHand) {
  const Plan plan = plan_of("p4 t2 d2 b1 m32 1f1b sp zero1 overlap=gradients");
  Plan hand = plan;
  for (PlanStage& stage : hand.stages) stage.cost = {};
  EXPECT_FALSE(is_priced(hand));
  price(hand, StepModel(job_of(hand), machine_of(hand.cluster)));
  EXPECT_EQ(hand.stages, plan.stages);
}

TEST_F(LayoutPlan, PutsUnevenEndsWhereTheLayoutSays) {
  const Plan plan = plan_of("p4 t1 d4 b1 m16 first=3 last=2 1f1b");
  std::vector<std::int64_t> layers;
  for (const PlanStage& stage : plan.stages) layers.push_back(stage.layers.last - stage.layers.first);
  EXPECT_EQ(layers, (std::vector<std::int64_t>{1 + 3, 6, 5, 2 + 1}));
  EXPECT_EQ(parallel_layout(plan).first_stage_layers, 3);
  EXPECT_EQ(parallel_layout(plan).last_stage_layers, 2);
}

TEST_F(LayoutPlan, PlacesBlocksByHandWithEverySchedule) {
  TrainingJob job{*network_.transformer, 64, 2048, DataType::bf16};
  job.recomputed_blocks = {3, 0, 1, 2};
  for (const char* text : {"p4 t2 d2 b1 m32 1f1b sp zero1", "p4 v2 t2 d2 b1 m32 interleaved-1f1b sp",
                           "p4 v2 t2 d2 b1 m32 v-half sp zero3", "p4 t1 d4 b1 m16 chimera", "p4 v2 d4 b1 m16 zb-v"}) {
    ParallelLayout layout = parse_layout(text);
    job.stage_blocks = layout.stages() == 4 ? std::vector<std::int32_t>{2, 6, 5, 3}
                                            : std::vector<std::int32_t>{1, 3, 2, 2, 2, 1, 3, 2};
    layout.recompute = Recompute::full;
    layout.recomputed_layers = listed_layers;
    const StepModel by_hand(job, machine_of(cluster_));
    ASSERT_EQ(by_hand.refuse(layout), "") << text;
    const Plan plan = make_plan(by_hand, network_, cluster_, layout);
    std::vector<std::int64_t> on_rank(4);
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
      const LayerRange& layers = plan.stages[s].layers;
      const bool end = s == 0 || s + 1 == plan.stages.size();
      EXPECT_EQ(layers.last - layers.first, job.stage_blocks[s] + (end ? 1 : 0)) << text;
      const std::size_t rank = plan.stages[s].second_rank ? s : static_cast<std::size_t>(plan.stages[s].rank.value);
      on_rank[rank] += job.stage_blocks[s];
    }
    for (std::int32_t rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(by_hand.layers_of(layout, rank), on_rank[static_cast<std::size_t>(rank)]) << text;
    }
    const Json json = to_json(plan);
    EXPECT_EQ(json["layout"]["recomputed_layers"], Json({3, 0, 1, 2}));
    Plan back = plan_from_json(JsonValue(json, "plan.json"));
    EXPECT_EQ(back.layout, plan.layout) << text;
    for (PlanStage& stage : back.stages) stage.cost = {};
    price(back, StepModel(job_of(back), machine_of(back.cluster)));
    EXPECT_EQ(back.stages, plan.stages) << text << ": read back, priced as it was";
    const double closed = plan.prediction.closed_form_step->value();
    EXPECT_NEAR(plan.prediction.timeline_step->value(), closed, 0.25 * closed) << text;
  }
}

TEST_F(LayoutPlan, SharesAStageOnTwoRanksOutOnce) {
  const Plan plan = plan_of("p4 t1 d4 b1 m16 dualpipe");
  EXPECT_EQ(plan.stages.size(), 4U);
  EXPECT_EQ(plan.stages.back().layers.last, 18);
  for (const PlanStage& stage : plan.stages) EXPECT_TRUE(stage.second_rank.has_value());
}

TEST_F(LayoutPlan, FollowsTheOrderOfDimensions) {
  const Plan plan = plan_of("p2 t2 d2 b1 m32 1f1b order=ptcd");
  EXPECT_EQ(plan.devices[0], (std::vector{DeviceId{0}, DeviceId{1}})) << "stages are neighbours";
  EXPECT_EQ(plan.devices[1], (std::vector{DeviceId{2}, DeviceId{3}})) << "then shards";
  EXPECT_EQ(plan.devices[2], (std::vector{DeviceId{4}, DeviceId{5}})) << "then replicas";
  EXPECT_EQ(plan.replicas(), 2);
  EXPECT_EQ(devices_of(parallel_layout(plan)), plan.devices);
}

TEST_F(LayoutPlan, IsNoFasterWithContention) {
  for (const char* text : {"p2 t2 d4 b1 m16 1f1b sp zero1", "p4 t4 d1 b1 m64 1f1b full", "p8 t1 d2 b2 m16 gpipe",
                           "p2 v4 t2 d4 b1 m16 interleaved-1f1b zero1"}) {
    const Plan plan = plan_of(text);
    const Seconds step = simgrid_step(plan);
    EXPECT_GE(step.value(), plan.prediction.timeline_step->value() * (1 - 1e-9)) << text;
    EXPECT_EQ(step, simulate_simgrid(plan).step_times.front()) << text;
    EXPECT_NEAR(step.value(), simgrid_step(plan, {.fold_replicas = false}).value(), 1e-6 * step.value()) << text;
  }
}

TEST_F(LayoutPlan, IsRefusedWithTheModelsReason) {
  Plan plan = plan_of("p2 t2 d4 b1 m16 1f1b zero1");
  plan.layout.expert = 2;
  try {
    price(plan, model());
    FAIL() << "a dense network has no experts to spread";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_THAT(error.what(), HasSubstr("needs a mixture of experts"));
  }
}

}  // namespace
}  // namespace stagecraft
