#include "planner/downsets.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "models/network/layer_graph.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

// 0 -> {branches of `length` layers} -> last
LayerGraph two_branches(int length) {
  Edges edges;
  const int last = 2 * length + 1;
  for (int branch = 0; branch < 2; ++branch) {
    int before = 0;
    for (int i = 0; i < length; ++i) {
      const int layer = 1 + branch * length + i;
      edges.emplace_back(before, layer);
      before = layer;
    }
    edges.emplace_back(before, last);
  }
  return make_graph(last + 1, edges);
}

LayerGraph random_dag(std::mt19937& random, int layers) {
  Edges edges;
  for (int to = 1; to < layers; ++to) {
    for (int from = 0; from < to; ++from) {
      if (random() % 3 == 0) edges.emplace_back(from, to);
    }
  }
  return make_graph(layers, edges);
}

TEST(DownsetCuts, OfAChainAreItsPositions) {
  const auto cuts = downset_cuts(make_chain(6));
  ASSERT_TRUE(cuts);
  EXPECT_EQ(cuts->nodes.size(), 7U);
  EXPECT_EQ(cuts->arcs.size(), 21U);
}

TEST(DownsetCuts, OfTwoBranchesAreTheirProduct) {
  // Nothing, the source with any prefixes of both branches, everything.
  const auto cuts = downset_cuts(two_branches(3));
  ASSERT_TRUE(cuts);
  EXPECT_EQ(cuts->nodes.size(), 1U + 4U * 4U + 1U);
}

TEST(DownsetCuts, AreExactlyTheSetsThatHoldWhatTheirMembersNeed) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    const LayerGraph graph = random_dag(random, 8);
    std::set<unsigned> expected;
    for (unsigned set = 0; set < 256; ++set) {
      const auto [first, last] = boost::edges(graph);
      const bool closed = std::all_of(first, last, [&](auto edge) {
        const bool target_in = (set >> boost::target(edge, graph) & 1U) != 0;
        return !target_in || (set >> boost::source(edge, graph) & 1U) != 0;
      });
      if (closed) expected.insert(set);
    }
    const auto cuts = downset_cuts(graph);
    ASSERT_TRUE(cuts);
    std::vector<unsigned> found;
    for (const CutGraph::Node& node : cuts->nodes) {
      found.push_back(node.parent < 0 ? 0 : found[static_cast<std::size_t>(node.parent)] | 1U << node.group);
    }
    EXPECT_EQ(std::set<unsigned>(found.begin(), found.end()), expected);
    std::size_t pairs = 0;
    for (const unsigned a : expected) {
      for (const unsigned b : expected) pairs += a != b && (a & b) == a ? 1 : 0;
    }
    EXPECT_EQ(cuts->arcs.size(), pairs);
    for (std::size_t from = 0; from < found.size(); ++from) {
      for (const CutGraph::Arc& arc : cuts->arcs_from(static_cast<int>(from))) {
        EXPECT_EQ(found[from] & found[static_cast<std::size_t>(arc.target)], found[from]);
      }
    }
  }
}

TEST(DownsetCuts, GiveUpBeyondTheirLimits) {
  EXPECT_FALSE(downset_cuts(two_branches(10), {50, 1'000'000}));
  EXPECT_FALSE(downset_cuts(two_branches(10), {200'000, 100}));
  EXPECT_FALSE(downset_cuts(make_graph(40, {})));  // 2^40 cuts
}

TEST(DownsetCuts, OrderLayersSoThatEveryStageIsARange) {
  std::mt19937 random(11);
  for (int round = 0; round < 30; ++round) {
    const LayerGraph graph = random_dag(random, 7);
    const auto cuts = downset_cuts(graph);
    ASSERT_TRUE(cuts);
    for_each_path(*cuts, 3, [&](const std::vector<int>& path) {
      const StageRanges ranges = stage_ranges(*cuts, path);
      ASSERT_EQ(ranges.stages.size(), 3U);
      EXPECT_EQ(ranges.stages.back().last, 7);
      std::vector<std::size_t> place(7);
      for (std::size_t i = 0; i < 7; ++i) place[ranges.order[i]] = i;
      for (auto [edge, end] = boost::edges(graph); edge != end; ++edge) {
        EXPECT_LT(place[boost::source(*edge, graph)], place[boost::target(*edge, graph)]);
      }
    });
  }
}

TEST(DownsetPartition, EqualsBruteForceOverAllDownsetChains) {
  std::mt19937 random(5);
  int solved = 0;
  for (int round = 0; round < 200; ++round) {
    LayerGraph graph = random_dag(random, 7);
    CutGraph cuts = downset_cuts(graph).value();
    const RandomCase example(random, std::move(graph), std::move(cuts), 2);
    const auto objective = round % 2 == 0 ? Objective::gpipe : Objective::one_f_one_b;
    const PartitionProblem problem = example.problem(random, 2 + round % 3, 1 + round % 5, objective, 35);
    double best = std::numeric_limits<double>::infinity();
    for_each_path(example.cuts, static_cast<int>(problem.slots.size()), [&](const std::vector<int>& path) {
      if (worst_memory(problem, path).excess() <= 0) best = std::min(best, closed_form(problem, path));
    });
    const auto partition = best_partition(problem);
    EXPECT_EQ(partition.has_value(), best < std::numeric_limits<double>::infinity());
    if (!partition) continue;
    ++solved;
    EXPECT_EQ(partition->closed_form, best) << "round " << round;
    EXPECT_LE(worst_memory(problem, partition->cuts).excess(), 0);
  }
  EXPECT_GT(solved, 50);
}

// Two branches without ends: A has layers of 2, 2 and 8, B of 8, 2 and 2, and the order by lowest index runs A first.
// Three equal stages need the 8 of B, then two layers of each branch, then the 8 of A.
TEST(DownsetPartition, BeatsTheSingleOrderWhereAStageTakesFromBothBranches) {
  const LayerGraph graph = make_graph(6, {{0, 1}, {1, 2}, {3, 4}, {4, 5}}, 0);
  std::vector<std::vector<LayerCost>> layers(1);
  for (const double time : {2, 2, 8, 8, 2, 2}) layers[0].push_back(make_cost(time, time));
  const auto solve = [&](const CutGraph& cuts) {
    const CutCosts costs = price(cuts, graph, layers);
    PartitionProblem problem{cuts, costs, {}, 10, Objective::gpipe, 1, 0};
    for (int s = 0; s < 3; ++s) problem.slots.push_back({0, 1e300, 10, 0, delay(0), 0, 0});
    return best_partition(problem).value();
  };
  // In the order 2 2 8 8 2 2 no three stages do better than a bottleneck of 12.
  EXPECT_EQ(solve(linear_cuts(graph)).closed_form, 2 * (24 + 9 * 12));
  EXPECT_EQ(solve(downset_cuts(graph).value()).closed_form, 2 * (24 + 9 * 8));
}

}  // namespace
}  // namespace stagecraft
