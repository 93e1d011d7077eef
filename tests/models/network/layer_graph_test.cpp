#include "models/network/layer_graph.hpp"

#include <gmock/gmock.h>

#include "models/error.hpp"

namespace stagecraft {
namespace {

using testing::ElementsAre;

LayerGraph graph_of(std::size_t layers, const std::vector<std::pair<LayerId, LayerId>>& edges) {
  LayerGraph graph;
  for (std::size_t i = 0; i < layers; ++i) graph[add_vertex(graph)].name = std::string(1, static_cast<char>('a' + i));
  for (const auto& [from, to] : edges) add_edge(from, to, Tensor{{.per_token = 10}}, graph);
  return graph;
}

std::string message_of(const LayerGraph& graph) {
  try {
    topological_order(graph);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(LayerGraph, OrdersTheLowestIndexFirstAmongReadyLayers) {
  EXPECT_THAT(topological_order(graph_of(4, {{3, 0}, {3, 2}, {0, 1}})), ElementsAre(3, 0, 1, 2));
  EXPECT_THAT(topological_order(graph_of(3, {})), ElementsAre(0, 1, 2));
}

TEST(LayerGraph, NamesTheLayersOfACycleAndNotThoseBehindIt) {
  // a -> b -> c -> b, c -> d: d waits for the cycle but is not on it.
  EXPECT_EQ(message_of(graph_of(4, {{0, 1}, {1, 2}, {2, 1}, {2, 3}})), "layers form a cycle: 'b' -> 'c' -> 'b'");
  EXPECT_EQ(message_of(graph_of(4, {{1, 0}, {1, 2}, {2, 3}, {3, 1}})), "layers form a cycle: 'b' -> 'c' -> 'd' -> 'b'");
  EXPECT_EQ(message_of(graph_of(1, {{0, 0}})), "layers form a cycle: 'a' -> 'a'");
}

TEST(LayerGraph, AbbreviatesALongCycle) {
  std::vector<std::pair<LayerId, LayerId>> edges;
  for (LayerId i = 0; i < 20; ++i) edges.emplace_back(i, (i + 1) % 20);
  EXPECT_EQ(message_of(graph_of(20, edges)),
            "layers form a cycle: 'a' -> 'b' -> 'c' -> 'd' -> 'e' -> 'f' -> 'g' -> 'h' -> ... (20 layers) -> 'a'");
}

TEST(LayerGraph, CountsAProducerWithSeveralConsumersOnceInACut) {
  LayerGraph graph = graph_of(4, {});
  add_edge(0, 1, Tensor{{.per_token = 10}}, graph);
  add_edge(0, 2, Tensor{{.per_sample = 3, .per_token = 4}}, graph);
  add_edge(1, 3, Tensor{{.per_token = 7}}, graph);
  add_edge(2, 3, Tensor{{.per_token = 5}}, graph);
  EXPECT_EQ(cut_elements(graph, {true, false, false, false}), (Amount{.per_sample = 3, .per_token = 10}));
  EXPECT_EQ(cut_elements(graph, {true, true, false, false}), (Amount{.per_sample = 3, .per_token = 11}));
  EXPECT_EQ(cut_elements(graph, {true, true, true, false}), (Amount{.per_token = 12}));
  EXPECT_EQ(cut_elements(graph, {true, true, true, true}), Amount{});
}

TEST(LayerGraph, CountsTiedParametersOnce) {
  LayerGraph graph = graph_of(2, {{0, 1}});
  graph[0].parameters = 100;
  graph[1].parameters = 60;
  graph[1].tied_parameters = 50;
  graph[1].tied_to = "a";
  EXPECT_EQ(total_parameters(graph), 110);
}

TEST(LayerGraph, AmountsScaleWithSamplesTokensAndPairs) {
  EXPECT_EQ((Amount{.per_sample = 1, .per_token = 10, .per_token_pair = 100}.at(2, 3)), 2 * (1 + 30 + 900));
}

}  // namespace
}  // namespace stagecraft
