// What the stages between any two cuts cost: the table that partitioning works on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/cost/cost.hpp"
#include "planner/cut_graph.hpp"

namespace stagecraft {

// One micro-batch, by kind of device ("type": an index that the caller gives meaning). Plain doubles, since the search
// adds millions of them: seconds and bytes.
struct CutCosts {
  struct Sums {  // of all layers inside a cut; a stage's are the difference of two
    double forward = 0;
    double backward_input = 0;  // recomputation included
    double backward_weight = 0;
    double backward_saving = 0;  // of a full backward against its two parts
    double optimizer = 0;
    double resident = 0;  // bytes kept whatever is in flight: weights, gradients, optimizer state
    double reduced = 0;   // bytes that replicas sum
    double stash = 0;
    double split = 0;
    double backward() const { return backward_input + backward_weight - backward_saving; }
  };
  std::vector<std::vector<Sums>> sums;  // [type][node]
  // [type][busy neighbours][node]: of slices of a GPU (StageCost::beside); empty for other types.
  std::vector<std::vector<std::vector<Sums>>> beside;
  std::vector<Overheads> overheads;            // [type]: what a stage takes on top of its layers
  std::vector<std::vector<double>> workspace;  // [type][arc]: bytes, the largest of the stage's layers
  std::vector<double> boundary;                // [node]: bytes that cross the cut
  double tied = 0;                             // gradient bytes of shared tables whose two layers are apart
  // [type][tie]: what the user of a shared table counts although a stage with its owner has it already: of `optimizer`,
  // `resident` and `reduced`.
  std::vector<std::vector<Sums>> held_once;
};

// What changes where a stage's first blocks recompute, of a network whose cuts are a chain.
struct BlockCosts {
  std::vector<int> before;  // [node]: blocks inside the cut
  // [type][n]: where the first n blocks of the network recompute, seconds that their backwards take longer and bytes
  // that they stash less.
  std::vector<std::vector<double>> longer, smaller;
  std::vector<std::vector<double>> workspace;  // [type][arc]: bytes, where all blocks of the stage recompute
};

// Of a layer's parameters, those of a table that another one owns.
double tied_share(const Layer& user);

// The sums between two cuts of one type.
inline CutCosts::Sums operator-(const CutCosts::Sums& to, const CutCosts::Sums& from) {
  return {to.forward - from.forward,
          to.backward_input - from.backward_input,
          to.backward_weight - from.backward_weight,
          to.backward_saving - from.backward_saving,
          to.optimizer - from.optimizer,
          to.resident - from.resident,
          to.reduced - from.reduced,
          to.stash - from.stash,
          to.split - from.split};
}

inline Overheads overheads_of(const CutCosts& costs, int type) {
  return costs.overheads.empty() ? Overheads{} : costs.overheads[static_cast<std::size_t>(type)];
}

// Of a stage between two cuts of a type, whose shared tables count once.
inline CutCosts::Sums sums_between(const CutGraph& cuts, const CutCosts& costs, int type, int from, int to) {
  const auto& sums = costs.sums[static_cast<std::size_t>(type)];
  CutCosts::Sums stage = sums[static_cast<std::size_t>(to)] - sums[static_cast<std::size_t>(from)];
  if (cuts.ties.empty()) return stage;
  const CutGraph::Node &a = cuts.nodes[static_cast<std::size_t>(from)], &b = cuts.nodes[static_cast<std::size_t>(to)];
  const std::uint64_t both = (b.owners & ~a.owners) & (b.users & ~a.users);
  for (std::size_t tie = 0; both >> tie != 0; ++tie) {
    if ((both >> tie & 1) != 0) stage = stage - costs.held_once[static_cast<std::size_t>(type)][tie];
    if (tie == 63) break;
  }
  return stage;
}

// costs[type][c] prices layers of class c, class_of[LayerId] says which: layers that cost the same share a class.
// REQUIRES: a class for every layer, a cost for every class and type. Leaves `beside` and `overheads` empty.
CutCosts cut_costs(const CutGraph& cuts, const LayerGraph& graph, std::span<const int> class_of,
                   std::span<const std::vector<LayerCost>> costs, const Workload& workload);
// One entry of `beside`: costs[c] prices layers of class c on one type with a number of its neighbours busy.
std::vector<CutCosts::Sums> cut_sums(const CutGraph& cuts, std::span<const int> class_of,
                                     const std::vector<LayerCost>& costs);
// `keeping` and `recomputing` as `costs` of cut_costs. REQUIRES: cuts that are a chain.
BlockCosts block_costs(const CutGraph& cuts, const LayerGraph& graph, std::span<const int> class_of,
                       std::span<const std::vector<LayerCost>> keeping,
                       std::span<const std::vector<LayerCost>> recomputing);

}  // namespace stagecraft
