// Searches with cost models that heed what else goes on: neighbours on a GPU, its load, the number of micro-batches.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "models/network/layer_graph.hpp"
#include "planner/planner.hpp"
#include "sim/timeline.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

// A layer's parameters say how much longer it takes beside a busy neighbour.
class SharingModel final : public CostModel {
 public:
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override {
    const int busy = workload.busy_neighbours.value_or(most_neighbours(device));
    LayerCost cost;
    cost.forward = Seconds(layer.matmul_flops.per_sample + busy * static_cast<double>(layer.parameters));
    cost.backward_input = cost.backward_weight = cost.forward;
    cost.backward_saving = cost.forward * 0.25;
    return cost;
  }
  Overheads overheads(const DeviceType&) const override { return {Seconds(0.5), Seconds(1)}; }
};

TEST(Search, OnSlicesOfAGpuFindsTheCutThatIsBestWhereNeighboursDisturb) {
  std::mt19937 random(7);
  Cluster cluster = make_cluster({{1, 2}});
  cluster.device_types[0].multiprocessors = 50;
  cluster.device_types[0].gpu_multiprocessors = 100;
  for (int round = 0; round < 10; ++round) {
    Network network = make_network(make_chain(7));
    for (LayerId layer = 0; layer < network.graph.layers(); ++layer) {
      network.graph[layer].matmul_flops.per_sample = static_cast<double>(1 + random() % 9);
      network.graph[layer].parameters = static_cast<std::int64_t>(random() % 20);
    }
    SearchSpace space = make_space(3);
    space.microbatch = 1;
    space.stages = 2;
    space.replicas = 1;
    space.schedule = "1f1b";
    const SearchResult result = search(network, cluster, SharingModel(), space);
    ASSERT_FALSE(result.best().stages[0].cost.beside.empty());
    Seconds least(1e9);
    for (std::int64_t cut = 1; cut < 7; ++cut) {
      Plan plan = result.best();
      plan.stages[0].layers = {0, cut};
      plan.stages[1].layers = {cut, 7};
      price(plan, SharingModel());
      least = std::min(least, simulate_timeline(plan).step_times.front());
    }
    EXPECT_NEAR(result.best().prediction.timeline_step->value(), least.value(), 1e-9 * least.value());
  }
}

// Forwards take as long as the GPU computes of the step.
class RestingModel final : public CostModel {
 public:
  LayerCost layer_cost(const Layer&, const Workload& workload, const DeviceType&) const override {
    LayerCost cost;
    cost.forward = cost.backward_input = cost.backward_weight = Seconds(unit * workload.load.forward);
    return cost;
  }
  bool heeds_load() const override { return true; }
  static constexpr double unit = 1e-7;  // seconds: a step is short for the clock
};

TEST(Search, PricesThePlanAtTheLoadOfItsGpus) {
  SearchSpace space = make_space(4);
  space.microbatch = 1;
  space.stages = 2;
  space.replicas = 1;
  space.schedule = "gpipe";
  const SearchResult result = search(make_network(make_chain(4)), make_cluster({{1, 2}}), RestingModel(), space);
  const Plan& plan = result.best();
  // Four micro-batches in five slots.
  EXPECT_NEAR(plan.stages[0].cost.forward.value() / RestingModel::unit, 2 * 0.8, 1e-4);
  EXPECT_NEAR(plan.prediction.timeline_step->value() / RestingModel::unit, 5 * 3 * 1.6, 1e-3);
  EXPECT_EQ(*plan.prediction.timeline_step, simulate_timeline(plan).step_times.front());
}

// The first backward of a step takes half as long as the others.
class FirstBackwardModel final : public CostModel {
 public:
  LayerCost layer_cost(const Layer&, const Workload& workload, const DeviceType&) const override {
    LayerCost cost;
    cost.forward = cost.backward_input = Seconds(1 + static_cast<double>(workload.microbatch));
    cost.backward_weight = cost.forward;
    if (workload.microbatches > 0) cost.backward_weight -= cost.forward / static_cast<double>(workload.microbatches);
    return cost;
  }
  bool heeds_microbatches() const override { return true; }
};

TEST(Search, PricesTheMeanBackwardOfAStep) {
  SearchSpace space = make_space(8);
  space.keep = 20;
  space.replicas = 1;
  const SearchResult result = search(make_network(make_chain(4)), make_cluster({{1, 2}}), FirstBackwardModel(), space);
  std::set<std::int64_t> seen;
  for (const RankedPlan& ranked : result.ranked) {
    const std::int64_t microbatches = ranked.plan.batch.microbatches;
    const double unit = 1 + static_cast<double>(ranked.plan.batch.microbatch);
    const int stages = static_cast<int>(ranked.plan.stages.size());
    const auto m = static_cast<double>(microbatches);
    // Equal stages: (M + P - 1)(f + b) with f and b of 4 / P layers.
    const double expected = (m + stages - 1) * (3 * unit - unit / m) * 4 / stages;
    EXPECT_NEAR(ranked.candidate.closed_form->value(), expected, 1e-9 * expected) << to_string(ranked.candidate.layout);
    EXPECT_NEAR(ranked.candidate.timeline->value(), expected, 1e-9 * expected) << to_string(ranked.candidate.layout);
    seen.insert(microbatches);
  }
  EXPECT_GT(seen.size(), 2U);
}

}  // namespace
}  // namespace stagecraft
