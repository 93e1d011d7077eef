#include "planner/judge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "models/cost/framework_cost.hpp"
#include "models/cost/memory.hpp"
#include "models/cost/roofline.hpp"
#include "models/recomputed_layers.hpp"
#include "planner/assemble.hpp"
#include "sim/plan_trace.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

// Twelve blocks, the first `dense` of another kind.
Network make_transformer(bool has_shared_table, std::int64_t dense = 0) {
  Network network;
  network.name = "test";
  Transformer t;
  t.family = has_shared_table ? "gpt2" : "llama";
  t.layers = 12;
  t.hidden = 1024;
  t.heads = t.kv_heads = 8;
  t.head_size = t.hidden / t.heads;
  t.ffn = 4 * t.hidden;
  t.vocabulary = 32000;
  t.max_sequence = 1024;
  if (dense > 0) {
    t.family = "deepseek_v3";
    t.experts = 8;
    t.experts_per_token = 2;
    t.dense_layers = dense;
    t.dense_ffn = 2 * t.ffn;
  }
  network.graph = build_graph(t);
  network.transformer = t;
  return network;
}

// Two small new devices, three larger old ones.
Cluster two_generations(double memory) {
  Cluster cluster = make_cluster({{400e12, 2, memory}, {100e12, 3, 1.5 * memory}});
  for (Node& node : cluster.nodes) {
    node.local = {Seconds(5e-6), BytesPerSecond(200e9)};
    node.network = {Seconds(5e-6), BytesPerSecond(10e9)};
  }
  return cluster;
}

// Calls visit for each layout whose best partition recomputes some blocks.
void for_each_counted(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space,
                      const std::function<void(Judge&, const Judgement&, const Plan&)>& visit) {
  const CutGraph cuts = linear_cuts(network.graph);
  PriceList prices(network.graph, cluster, model,
                   {1, space.sequence, space.precision, space.optimizer, Recompute::none, space.fused_attention});
  Judge judge(network, cluster, cuts, prices, space);
  PlanMaker maker(network, cluster, model, space, judge);
  for (const LayoutOption& option :
       list_layouts(space, static_cast<std::int64_t>(cuts.groups.size()), static_cast<int>(cluster.devices.size()))
           .options) {
    for (const Geometry& geometry : judge.geometries(option.layout)) {
      auto judgement = judge.partition(option, geometry);
      if (!judgement) continue;
      judge.simulate(*judgement, 0);
      if (judgement->layout().recomputed_layers) visit(judge, *judgement, maker.make(*judgement).plan);
    }
  }
}

SearchSpace make_space(std::int32_t recomputed) {
  SearchSpace space;
  space.global_batch = 16;
  space.sequence = 1024;
  space.recomputed_layers = recomputed;
  if (recomputed == listed_layers) space.recomputed_blocks = {3, 0, 1};
  return space;
}

TEST(CountedBlocks, CostAPartitionWhatTheyCostItsPlan) {
  const Cluster cluster = two_generations(4e9);
  for (const bool has_shared_table : {true, false}) {
    const Network network = make_transformer(has_shared_table);
    const RooflineCostModel roofline;
    const FrameworkCostModel framework(network, cluster, "megatron-core");
    for (const CostModel* model : {static_cast<const CostModel*>(&roofline), static_cast<const CostModel*>(&framework)})
      for (const std::int32_t recomputed : {2, fewest_layers, listed_layers}) {
        int plans = 0;
        const SearchSpace space = make_space(recomputed);
        for_each_counted(network, cluster, *model, space, [&](Judge&, const Judgement& judgement, const Plan& plan) {
          ++plans;
          const double step = plan.prediction.timeline_step->value();
          EXPECT_NEAR(judgement.timeline / step, 1, 1e-9) << to_string(judgement.option.layout);
          double share = 0;
          for (std::size_t rank = 0; rank < plan.stages.size(); ++rank) {
            share =
                std::max(share, plan.prediction.peak_memory[rank] / plan.cluster.type_of(plan.devices[0][rank]).memory);
          }
          EXPECT_NEAR(judgement.memory / share, 1, 1e-9) << to_string(judgement.option.layout);
        });
        EXPECT_GT(plans, 5) << recomputed;
      }
  }
}

// Whatever blocks there are, times agree; the workspace is that of the largest.
TEST(CountedBlocks, CostAPartitionWhatUnlikeOnesCostItsPlan) {
  const Network network = make_transformer(false, 3);
  const RooflineCostModel model;
  const Cluster cluster = two_generations(30e9);
  int plans = 0;
  for_each_counted(network, cluster, model, make_space(2), [&](Judge&, const Judgement& judgement, const Plan& plan) {
    ++plans;
    EXPECT_NEAR(judgement.timeline / plan.prediction.timeline_step->value(), 1, 1e-9);
    for (std::size_t rank = 0; rank < plan.stages.size(); ++rank) {
      const Bytes memory = plan.cluster.type_of(plan.devices[0][rank]).memory;
      EXPECT_LE(plan.prediction.peak_memory[rank] / memory, judgement.memory * (1 + 1e-9));
    }
  });
  EXPECT_GT(plans, 5);
}

TEST(CountedBlocks, AreTheFewestThatLetARankFit) {
  const Network network = make_transformer(true);
  const RooflineCostModel model;
  const Cluster cluster = two_generations(4e9);
  int ranks = 0;
  for_each_counted(network, cluster, model, make_space(fewest_layers), [&](Judge&, const Judgement&, const Plan& plan) {
    const auto excess = [&](const Plan& of, std::size_t rank) {
      return trace_header(of, "").peak_memory[rank] - of.cluster.type_of(of.devices[0][rank]).memory;
    };
    for (std::size_t rank = 0; rank < plan.stages.size(); ++rank) {
      EXPECT_LE(excess(plan, rank), Bytes(0));
      if (plan.layout.recomputed_by_rank[rank] == 0) continue;
      ++ranks;
      Plan fewer = plan;
      --fewer.layout.recomputed_by_rank[rank];
      price(fewer, model);
      EXPECT_GT(excess(fewer, rank), Bytes(0)) << plan.layout.recomputed_by_rank[rank] << " on rank " << rank;
    }
  });
  EXPECT_GT(ranks, 20);
}

// What prunes the search is no more than any partition takes.
TEST(CountedBlocks, TakeNoLessThanTheBoundsOfTheSearch) {
  const Network network = make_transformer(true);
  const RooflineCostModel model;
  const Cluster cluster = two_generations(4e9);
  for (const LayoutObjective objective : {LayoutObjective::time, LayoutObjective::memory}) {
    for (const std::int32_t recomputed : {2, fewest_layers, listed_layers}) {
      SearchSpace space = make_space(recomputed);
      space.objective = objective;
      for_each_counted(network, cluster, model, space, [&](Judge& judge, const Judgement& judgement, const Plan&) {
        EXPECT_LE(judge.least_score(judgement.option, *judgement.geometry),
                  objective == LayoutObjective::time ? judgement.closed_form : judgement.memory);
      });
    }
  }
}

}  // namespace
}  // namespace stagecraft
