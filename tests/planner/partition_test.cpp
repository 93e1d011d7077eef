#include "planner/partition.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "models/network/layer_graph.hpp"
#include "models/recomputed_layers.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::ElementsAre;

// A chain with the given forwards; backwards take twice as long.
struct Chain {
  LayerGraph graph;
  CutGraph cuts;
  CutCosts costs;
  explicit Chain(const std::vector<double>& forwards, double resident = 0, double stash = 0)
      : graph(make_chain(static_cast<int>(forwards.size()))), cuts(linear_cuts(graph)) {
    std::vector<std::vector<LayerCost>> layers(1);
    for (const double forward : forwards) layers[0].push_back(make_cost(forward, 2 * forward, resident, stash));
    costs = price(cuts, graph, layers);
  }
  PartitionProblem problem(int stages, int microbatches, Objective objective, double hop = 0) const {
    PartitionProblem problem{cuts, costs, {}, microbatches, objective, 1, 0};
    for (int s = 0; s < stages; ++s) problem.slots.push_back({0, 1e300, 1, 0, delay(hop), 0, 0});
    return problem;
  }
};

TEST(ClosedForm, OfEqualStagesIsTheTextbookMakespan) {
  const Chain chain({1, 1, 1, 1});
  for (const Objective objective : {Objective::gpipe, Objective::one_f_one_b}) {
    // (M + P - 1)(f + b)
    EXPECT_EQ(closed_form(chain.problem(4, 8, objective), std::vector<int>{0, 1, 2, 3, 4}), 11 * 3);
    EXPECT_EQ(closed_form(chain.problem(2, 8, objective), std::vector<int>{0, 2, 4}), 9 * 6);
  }
}

TEST(ClosedForm, AddsMessagesBothWays) {
  const Chain chain({1, 1, 1, 1});
  EXPECT_EQ(closed_form(chain.problem(4, 8, Objective::gpipe, 0.5), std::vector<int>{0, 1, 2, 3, 4}), 33 + 3);
}

TEST(ClosedForm, OfGPipeAddsTheTailOfTheStageThatEndsLast) {
  Chain chain({1, 1});
  PartitionProblem problem = chain.problem(2, 4, Objective::gpipe);
  problem.reduce_tied = 3;
  // Stage 0 is done with its backwards 2 after stage 1: its tail counts whole.
  EXPECT_EQ(closed_form(problem, std::vector<int>{0, 1, 2}), 15 + 3);
  problem.reduce_tied = 0;
  problem.slots[1].reduce_latency = 3;
  // Stage 1's tail of 3 begins 2 earlier.
  EXPECT_EQ(closed_form(problem, std::vector<int>{0, 1, 2}), 15 + 1);
}

TEST(BestPartition, BalancesUnequalLayers) {
  const Chain chain({4, 1, 1, 1, 1, 4});
  const auto partition = best_partition(chain.problem(3, 10, Objective::one_f_one_b));
  ASSERT_TRUE(partition);
  EXPECT_THAT(partition->cuts, ElementsAre(0, 1, 5, 6));
  EXPECT_EQ(partition->closed_form, 3 * (12 + 9 * 4));
}

// Cutting at the thin tensor makes the worst stage slower and the step faster: the slowest stage is not all.
TEST(BestPartition, TradesTheSlowestStageForACheaperMessage) {
  LayerGraph graph = make_chain(4);
  for (auto [edge, end] = boost::edges(graph); edge != end; ++edge) {
    graph[*edge].elements.per_sample = boost::source(*edge, graph) == 1 ? 100 : 1;
  }
  const CutGraph cuts = linear_cuts(graph);
  const std::vector<std::vector<LayerCost>> layers{{4, make_cost(1, 1)}};
  const CutCosts costs = price(cuts, graph, layers);
  PartitionProblem problem{cuts, costs, {}, 4, Objective::gpipe, 1, 0};
  for (int s = 0; s < 2; ++s) problem.slots.push_back({0, 1e300, 4, 0, {Seconds(0), BytesPerSecond(1)}, 0, 0});
  const auto partition = best_partition(problem);
  ASSERT_TRUE(partition);
  EXPECT_THAT(partition->cuts, ElementsAre(0, 1, 4));
  EXPECT_EQ(partition->closed_form, 8 + 2 * 1 + 3 * 3 * 2);  // balanced: 8 + 2 * 100 + 3 * 2 * 2
}

TEST(BestPartition, GivesTheFasterDeviceMoreLayers) {
  const LayerGraph graph = make_chain(6);
  const CutGraph cuts = linear_cuts(graph);
  std::vector<std::vector<LayerCost>> layers(2);
  for (int i = 0; i < 6; ++i) {
    layers[0].push_back(make_cost(1, 1));
    layers[1].push_back(make_cost(2, 2));
  }
  const CutCosts costs = price(cuts, graph, layers);
  PartitionProblem problem{cuts, costs, {}, 20, Objective::one_f_one_b, 1, 0};
  problem.slots.push_back({1, 1e300, 1, 0, delay(0), 0, 0});
  problem.slots.push_back({0, 1e300, 1, 0, delay(0), 0, 0});
  EXPECT_THAT(best_partition(problem)->cuts, ElementsAre(0, 2, 6));
}

TEST(BestPartition, LeavesStagesThatHoldMoreInFlightFewerLayers) {
  const Chain chain({1, 1, 1, 1, 1, 1}, 1, 1);
  PartitionProblem problem = chain.problem(2, 8, Objective::one_f_one_b);
  problem.slots[0].in_flight = 4;
  problem.slots[0].memory = 10;  // a layer needs 1 + 4: two fit
  EXPECT_THAT(best_partition(problem)->cuts, ElementsAre(0, 2, 6));
  problem.slots[1].memory = 6;  // a layer needs 1 + 1: three fit
  EXPECT_FALSE(best_partition(problem));
}

TEST(BestPartition, DoesNotExistForMoreStagesThanLayers) {
  const Chain chain({1, 1});
  EXPECT_FALSE(best_partition(chain.problem(3, 2, Objective::gpipe)));
}

TEST(LeastMemoryPartition, MinimisesTheWorstExcess) {
  const Chain chain({1, 1, 1, 1, 1, 1}, 10, 0);
  PartitionProblem problem = chain.problem(2, 8, Objective::gpipe);
  problem.slots[0].memory = 15;
  problem.slots[1].memory = 25;
  // 2 | 4: excess 5 and 15; 3 | 3: excess 15 and 5; nothing is better.
  const auto partition = least_memory_partition(problem);
  ASSERT_TRUE(partition);
  EXPECT_EQ(worst_memory(problem, partition->cuts).excess(), 15);
}

TEST(UniformCuts, SplitByNumberOfLayers) {
  EXPECT_THAT(uniform_cuts(linear_cuts(make_chain(7)), 3), ElementsAre(0, 2, 4, 7));
}

// Integers make the sums exact, so the dynamic program must hit the brute-force value exactly.
void expect_equal_to_brute_force(Objective objective, unsigned seed) {
  std::mt19937 random(seed);
  int infeasible = 0;
  for (int round = 0; round < 400; ++round) {
    const int layers = 2 + static_cast<int>(random() % 8);
    const int stages = 1 + static_cast<int>(random() % static_cast<unsigned>(layers));
    LayerGraph graph = make_chain(layers, 2);
    CutGraph cuts = linear_cuts(graph);
    const RandomCase example(random, std::move(graph), std::move(cuts), 3);
    const int microbatches = 1 + static_cast<int>(random() % 6);
    PartitionProblem problem =
        example.problem(random, stages, microbatches, objective, 20 + static_cast<double>(random() % 80));
    problem.reduce_tied = static_cast<double>(random() % 3);
    double best = std::numeric_limits<double>::infinity();
    double least_excess = best;
    for_each_path(example.cuts, stages, [&](const std::vector<int>& path) {
      const double excess = worst_memory(problem, path).excess();
      least_excess = std::min(least_excess, excess);
      if (excess <= 0) best = std::min(best, closed_form(problem, path));
    });
    const auto least = least_memory_partition(problem);
    ASSERT_TRUE(least);
    EXPECT_EQ(worst_memory(problem, least->cuts).excess(), least_excess);
    const auto partition = best_partition(problem);
    ASSERT_EQ(partition.has_value(), best < std::numeric_limits<double>::infinity()) << "round " << round;
    infeasible += partition ? 0 : 1;
    if (!partition) continue;
    EXPECT_EQ(partition->closed_form, best) << "round " << round;
    EXPECT_TRUE(partition->optimal);
    EXPECT_LE(worst_memory(problem, partition->cuts).excess(), 0);
  }
  EXPECT_GT(infeasible, 10);
  EXPECT_LT(infeasible, 390);
}

// Where blocks are counted: a path's stages as a problem of its own, whose first blocks cost as much as they say.
struct Counted {
  RandomCase example;
  std::vector<std::vector<LayerCost>> recomputing;  // [type][layer]
  BlockCosts blocks;

  Counted(std::mt19937& random, int layers)
      : example(random, make_chain(layers, 2), linear_cuts(make_chain(layers, 2)), 3) {
    const auto draw = [&](int low, int high) {
      return static_cast<double>(std::uniform_int_distribution<int>(low, high)(random));
    };
    for (auto& of_type : example.layers) {
      for (LayerCost& cost : of_type) {
        cost.stash = Bytes(draw(4, 12));
        cost.workspace = Bytes(1);
      }
    }
    recomputing = example.layers;
    for (LayerId layer = 0; layer < static_cast<LayerId>(layers); ++layer) {
      if (random() % 4 == 0) continue;
      example.graph[layer].input.per_sample = 1;
      for (auto& of_type : recomputing) {
        of_type[layer].recompute = Seconds(draw(1, 5));
        of_type[layer].stash = Bytes(draw(0, 3));
        of_type[layer].workspace = Bytes(4);
      }
    }
    example.costs = price(example.cuts, example.graph, example.layers);
    std::vector<int> class_of(static_cast<std::size_t>(layers));
    std::iota(class_of.begin(), class_of.end(), 0);
    blocks = block_costs(example.cuts, example.graph, class_of, example.layers, recomputing);
  }

  // What the path takes, and how many blocks of each stage recompute; infinite where it is not possible.
  std::pair<double, std::vector<std::int32_t>> by_hand(const PartitionProblem& problem,
                                                       const std::vector<int>& path) const {
    constexpr double impossible = std::numeric_limits<double>::infinity();
    auto layers = example.layers;
    std::vector<std::int32_t> counts;
    for (std::size_t s = 0; s < problem.slots.size(); ++s) {
      const StageSlot& slot = problem.slots[s];
      const auto type = static_cast<std::size_t>(slot.type);
      std::vector<LayerId> own;
      for (int at = path[s]; at < path[s + 1]; ++at) {
        if (example.graph[static_cast<LayerId>(at)].input != Amount{}) own.push_back(static_cast<LayerId>(at));
      }
      const auto fits = [&] {
        double bytes = 0, workspace = 0;
        for (auto at = static_cast<std::size_t>(path[s]); at < static_cast<std::size_t>(path[s + 1]); ++at) {
          const LayerCost& cost = layers[type][at];
          bytes += (cost.weights + cost.gradients + cost.optimizer_state + slot.in_flight * cost.stash).value();
          workspace = std::max(workspace, cost.workspace.value());
        }
        return bytes + workspace <= slot.memory;
      };
      std::size_t count = 0;
      const auto recompute_one = [&] {
        const LayerId next = own[count++];
        for (std::size_t each = 0; each < layers.size(); ++each) layers[each][next] = recomputing[each][next];
      };
      while (slot.recomputed == fewest_layers && count < own.size() && !fits()) recompute_one();
      while (static_cast<int>(count) < slot.recomputed && count < own.size()) recompute_one();
      if (!fits() || static_cast<int>(count) < slot.recomputed) return {impossible, {}};
      counts.push_back(static_cast<std::int32_t>(count));
    }
    const CutCosts costs = price(example.cuts, example.graph, layers);
    const PartitionProblem plain{example.cuts,      costs, problem.slots,       problem.microbatches,
                                 problem.objective, 1,     problem.reduce_tied, {}};
    return {closed_form(plain, path), counts};
  }
};

void expect_counted_equal_to_brute_force(Objective objective, unsigned seed) {
  std::mt19937 random(seed);
  int infeasible = 0, recomputing = 0;
  for (int round = 0; round < 600; ++round) {
    const int layers = 2 + static_cast<int>(random() % 7);
    const int stages = 1 + static_cast<int>(random() % static_cast<unsigned>(std::min(layers, 4)));
    const Counted counted(random, layers);
    PartitionProblem problem = counted.example.problem(random, stages, 1 + static_cast<int>(random() % 6), objective,
                                                       30 + static_cast<double>(random() % 120));
    problem.blocks = &counted.blocks;
    for (StageSlot& slot : problem.slots) {
      slot.recomputed = round % 2 == 0 ? fewest_layers : static_cast<int>(random() % 4);
    }
    double best = std::numeric_limits<double>::infinity();
    for_each_path(counted.example.cuts, stages, [&](const std::vector<int>& path) {
      const auto [step, counts] = counted.by_hand(problem, path);
      const bool is_possible = step < std::numeric_limits<double>::infinity();
      EXPECT_EQ(worst_memory(problem, path).excess() <= 0, is_possible) << "round " << round;
      if (!is_possible) return;
      EXPECT_EQ(recomputed_blocks(problem, path), counts) << "round " << round;
      EXPECT_EQ(closed_form(problem, path), step) << "round " << round;
      best = std::min(best, step);
    });
    const auto partition = best_partition(problem);
    ASSERT_EQ(partition.has_value(), best < std::numeric_limits<double>::infinity()) << "round " << round;
    infeasible += partition ? 0 : 1;
    if (!partition) continue;
    EXPECT_EQ(partition->closed_form, best) << "round " << round;
    const auto counts = recomputed_blocks(problem, partition->cuts);
    recomputing += std::count(counts.begin(), counts.end(), 0) < std::ssize(counts) ? 1 : 0;
  }
  EXPECT_GT(infeasible, 50);
  EXPECT_GT(recomputing, 100);
}

TEST(BestPartition, EqualsBruteForceWhereBlocksAreCounted) {
  expect_counted_equal_to_brute_force(Objective::gpipe, 3);
  expect_counted_equal_to_brute_force(Objective::one_f_one_b, 4);
}

TEST(BestPartition, EqualsBruteForceForGPipe) { expect_equal_to_brute_force(Objective::gpipe, 1); }
TEST(BestPartition, EqualsBruteForceForOneFOneB) { expect_equal_to_brute_force(Objective::one_f_one_b, 2); }

}  // namespace
}  // namespace stagecraft
