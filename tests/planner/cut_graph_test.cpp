#include "planner/cut_graph.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::ElementsAre;

TEST(LinearCuts, OfAChainAreItsPositions) {
  const CutGraph cuts = linear_cuts(make_chain(4));
  EXPECT_EQ(cuts.nodes.size(), 5U);
  EXPECT_EQ(cuts.arcs.size(), 10U);
  EXPECT_THAT(cuts.order, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(cuts.arcs_from(1).front().target, 2);
  EXPECT_EQ(cuts.arcs_from(1).back().target, 4);
}

TEST(LinearCuts, CountTensorsThatSkipStagesAtEveryCutTheyCross) {
  // 0 -> 1 -> 2 -> 3 and a skip 0 -> 3: the skip is relayed by every cut in between; 0's tensor counts once.
  const LayerGraph graph = make_graph(4, {{0, 1}, {1, 2}, {2, 3}, {0, 3}}, 5);
  const CutGraph cuts = linear_cuts(graph);
  std::vector<double> crossing;
  for (const CutGraph::Node& node : cuts.nodes) crossing.push_back(node.crossing.per_sample);
  EXPECT_THAT(crossing, ElementsAre(0, 5, 10, 10, 0));
}

TEST(LinearCuts, AgreeWithCutElementsOnRandomGraphs) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    Edges edges;
    for (int to = 1; to < 8; ++to) {
      for (int from = 0; from < to; ++from) {
        if (random() % 3 == 0) edges.emplace_back(from, to);
      }
    }
    LayerGraph graph = make_graph(8, edges);
    for (auto [edge, end] = boost::edges(graph); edge != end; ++edge) {
      graph[*edge].elements = {static_cast<double>(random() % 9), static_cast<double>(random() % 9), 0};
    }
    const CutGraph cuts = linear_cuts(graph);
    std::vector<bool> done(8, false);
    for (std::size_t i = 0; i < 8; ++i) {
      done[cuts.order[i]] = true;
      EXPECT_EQ(cuts.nodes[i + 1].crossing, cut_elements(graph, done)) << "round " << round << ", cut " << i + 1;
    }
  }
}

TEST(LinearCuts, AtGivenPositionsKeepLayersBetweenThemTogether) {
  const std::vector<std::int64_t> positions{2, 3};
  const CutGraph cuts = linear_cuts(make_chain(6), positions);
  ASSERT_EQ(cuts.groups.size(), 3U);
  EXPECT_THAT(cuts.groups[0], ElementsAre(0, 1));
  EXPECT_THAT(cuts.groups[1], ElementsAre(2));
  EXPECT_THAT(cuts.groups[2], ElementsAre(3, 4, 5));
}

TEST(LinearCuts, RefuseATieToALayerThatDoesNotExist) {
  LayerGraph graph = make_chain(2);
  graph[1].tied_to = "nobody";
  EXPECT_THROW(linear_cuts(graph), Error);
}

TEST(SharedTables, MayBePartedOnlyOverTheEnds) {
  LayerGraph graph = make_chain(4);
  graph[3].tied_to = "0";
  const CutGraph cuts = linear_cuts(graph);
  EXPECT_TRUE(cuts.allowed(0, 4, 0, 1));
  EXPECT_TRUE(cuts.allowed(0, 2, 0, 2));
  EXPECT_TRUE(cuts.allowed(2, 4, 1, 2));
  LayerGraph middle = make_chain(4);
  middle[2].tied_to = "1";
  const CutGraph inner = linear_cuts(middle);
  EXPECT_TRUE(inner.allowed(1, 3, 1, 3));
  EXPECT_FALSE(inner.allowed(1, 2, 1, 3));
  EXPECT_TRUE(inner.allowed(0, 2, 0, 2));
}

TEST(StageRanges, ListTheLayersOfEachStageTogether) {
  const CutGraph cuts = linear_cuts(make_chain(5));
  const StageRanges ranges = stage_ranges(cuts, std::vector<int>{0, 2, 3, 5});
  EXPECT_THAT(ranges.order, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(ranges.stages, ElementsAre(LayerRange{0, 2}, LayerRange{2, 3}, LayerRange{3, 5}));
}

TEST(EvenPositions, SpreadTheWorkAndKeepTheLimit) {
  LayerGraph graph = make_chain(100);
  for (LayerId layer = 0; layer < 100; ++layer) graph[layer].matmul_flops.per_sample = layer < 50 ? 1000 : 3000;
  const auto positions = even_positions(graph, 9);
  ASSERT_LE(positions.size(), 9U);
  ASSERT_GE(positions.size(), 8U);
  EXPECT_LE(positions.front(), 21);
  EXPECT_GE(positions.back(), 92);
  EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
}

}  // namespace
}  // namespace stagecraft
