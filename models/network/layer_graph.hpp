// A neural network as the planner sees it: a DAG of layers with what each computes, moves and keeps.
//
// Amounts scale with samples and tokens, so that one graph serves every micro-batch and sequence length. A vertex is
// the smallest piece that a stage boundary may separate (a transformer block, an embedding, a head).
#pragma once

#include <boost/graph/adjacency_list.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "models/json_reader.hpp"
#include "models/units.hpp"

namespace stagecraft {

// An amount for b samples of s tokens: b * (per_sample + per_token * s + per_token_pair * s^2).
struct Amount {
  double per_sample = 0;
  double per_token = 0;
  double per_token_pair = 0;
  double at(std::int64_t samples, std::int64_t tokens) const {
    const auto s = static_cast<double>(tokens);
    return static_cast<double>(samples) * (per_sample + per_token * s + per_token_pair * s * s);
  }
  bool operator==(const Amount&) const = default;
};

// Kept memory: elements in the computation's precision, and bytes of fixed width (masks, fp32 statistics).
struct StashAmount {
  Amount elements;
  Amount bytes;
  bool operator==(const StashAmount&) const = default;
};

struct Layer {
  std::string name;                  // unique: "block.3"
  std::string kind;                  // layers of one kind cost the same; the key of profile tables
  std::int64_t parameters = 0;       // trained elements that this layer holds, tied ones included
  std::int64_t tied_parameters = 0;  // of those, shared with the layer named `tied_to`, which owns them
  std::string tied_to;               // empty: nothing shared
  Amount matmul_flops;               // products with weights: forward; input and weight gradient cost as much each
  Amount attention_flops;            // products without weights: forward; the input gradient costs twice as much
  Amount moved;                      // elements read and written by memory-bound operations in the forward
  StashAmount stash;                 // kept until the backward without recomputation
  StashAmount attention_stash;       // of which: dropped by selective recomputation (and by fused attention)
  Amount input;                      // elements of the layer's input: what full recomputation keeps instead of the
                                     // stash; zero (embedding, head): the layer is never recomputed
  bool operator==(const Layer&) const = default;
};

struct Tensor {
  Amount elements;  // what the edge carries, in the computation's precision
  bool operator==(const Tensor&) const = default;
};

using LayerGraph = boost::adjacency_list<boost::vecS, boost::vecS, boost::bidirectionalS, Layer, Tensor>;
using LayerId = LayerGraph::vertex_descriptor;  // 0 .. num_vertices-1

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
