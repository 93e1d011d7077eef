// A neural network as the planner sees it: a DAG of layers with the tensors between them.
#pragma once

#include <boost/graph/adjacency_list.hpp>
#include <type_traits>
#include <vector>

#include "models/json_reader.hpp"
#include "models/network/layer.hpp"

namespace stagecraft {

using BoostLayerGraph = boost::adjacency_list<boost::vecS, boost::vecS, boost::bidirectionalS, Layer, Tensor>;
// A class of its own, so that it can be named without Boost.Graph's headers (layer.hpp).
class LayerGraph : public BoostLayerGraph {
 public:
  using BoostLayerGraph::BoostLayerGraph;
};
static_assert(std::is_same_v<LayerId, LayerGraph::vertex_descriptor>);

// Trained parameters of the network, tied ones once.
std::int64_t total_parameters(const LayerGraph& graph);

// The layers in an order in which every edge points forward; among several, the lowest index first (deterministic).
// Throws bad_input naming a layer on a cycle.
std::vector<LayerId> topological_order(const LayerGraph& graph);

// Elements that cross the cut between `done` (a downset: membership by LayerId) and the rest: each producer's tensor
// once, however many consumers, with the largest of its edges (coefficient by coefficient).
// REQUIRES: done.size() == num_vertices(graph).
Amount cut_elements(const LayerGraph& graph, const std::vector<bool>& done);

// The same layers in the same order with the same edges.
bool same_graph(const LayerGraph& a, const LayerGraph& b);

// Hand-written graphs, the array "layers" of docs/file_formats.md; LayerId is the position in it. Throws bad_input:
// duplicate or unknown names, cycles, self-loops, no layer or more than 100,000, more than 1,000,000 edges, one kind
// for layers of different costs, amounts below zero or above 10^24, more than 10^18 parameters.
LayerGraph graph_from_json(const JsonValue& value);
Json to_json(const LayerGraph& graph);

}  // namespace stagecraft
