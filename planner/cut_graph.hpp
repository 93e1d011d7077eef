// Where a network may be cut into stages.
//
// A cut is a set of layers that contains every layer its members need (a downset of the DAG): what is inside runs
// before what is outside. A pipeline of P stages is a path of P arcs from the empty cut to the full one; a stage is
// the difference of two cuts. In a chain the cuts are its positions; in a DAG with branches there are more of them than
// any one topological order shows (downsets.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/network/layer.hpp"
#include "models/plan.hpp"

namespace stagecraft {

// Nodes are cuts, by rising number of layers: node 0 is empty, the last holds all layers. An arc leads from a cut to
// each cut that contains it. What lies between grows layer group by layer group along `via`, so that a maximum over an
// arc's layers costs one comparison.
struct CutGraph {
  struct Node {
    int parent = -1;           // a cut that lacks only `group`; -1 for the empty cut
    int group = -1;            // into `groups`
    Amount crossing;           // elements of the tensors that cross the cut, skipping ones included
    std::uint64_t owners = 0;  // bit k: the layer that owns shared table k is inside
    std::uint64_t users = 0;   // bit k: the layer that uses it is inside
  };
  struct Arc {
    int target = 0;
    int via = -1;   // the arc from the same cut that lacks only `group`; -1: the arc is one group
    int group = 0;  // into `groups`
  };
  struct Tie {
    LayerId owner = 0, user = 0;
  };
  std::vector<std::vector<LayerId>> groups;  // layers that no cut separates; mostly of one layer
  std::vector<Node> nodes;
  std::vector<std::int64_t>
      first_arc;  // by node, and one past the last: arcs leaving node n are [first[n], first[n+1])
  std::vector<Arc> arcs;
  std::vector<LayerId> order;  // a topological order of the layers
  std::vector<int> line;       // the cuts of that order alone, rising: one of the ways through the graph
  std::vector<Tie> ties;       // shared tables; at most 64
  bool ties_part = true;       // a table's owner may be in the first stage and its user in the last

  bool is_chain() const { return line.size() == nodes.size(); }
  int full() const { return static_cast<int>(nodes.size()) - 1; }
  std::span<const Arc> arcs_from(int node) const {
    const auto at = static_cast<std::size_t>(node);
    return {arcs.data() + first_arc[at], arcs.data() + first_arc[at + 1]};
  }
  // The arc from one cut to another, -1 where the second does not contain the first.
  std::int64_t find_arc(int from, int to) const;
  // By cut: those with one group more or less.
  std::vector<std::vector<int>> neighbours() const;
  // Whether stage `stage` of `stages` may lie between two cuts: a shared table must have its owner and user in one
  // stage, or the owner in the first and the user in the last, where REDUCE_TIED sums its gradients (`ties_part`).
  bool allowed(int from, int to, int stage, int stages) const {
    const Node &a = nodes[static_cast<std::size_t>(from)], &b = nodes[static_cast<std::size_t>(to)];
    const std::uint64_t owners = b.owners & ~a.owners, users = b.users & ~a.users;
    return ((owners & ~users) == 0 || (ties_part && stage == 0)) &&
           ((users & ~owners) == 0 || (ties_part && stage + 1 == stages));
  }
};

// A path of cuts written out: an order of the layers in which every stage is a range.
struct StageRanges {
  std::vector<LayerId> order;  // topological
  std::vector<LayerRange> stages;
};
// REQUIRES: `cuts` leads from node 0 to the full cut along arcs.
StageRanges stage_ranges(const CutGraph& graph, std::span<const int> cuts);

// The cuts of topological_order(graph) at `positions` only (rising, inside (0, layers)); empty: at every position.
// Throws bad_input for more than 64 shared tables or an unknown owner.
CutGraph linear_cuts(const LayerGraph& graph, std::span<const std::int64_t> positions = {});

// At most `limit` positions, such that the layers between two of them take about equally many FLOPs: for networks with
// more layers than the search can weigh one by one.
std::vector<std::int64_t> even_positions(const LayerGraph& graph, std::int64_t limit);

// The pairs of layers that share a table. Throws as linear_cuts.
std::vector<CutGraph::Tie> shared_tables(const LayerGraph& graph);

// Fills owners and users of every node from its parent. For builders of cut graphs.
void mark_shared_tables(CutGraph& cuts);

}  // namespace stagecraft
