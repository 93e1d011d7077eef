#include "planner/cut_costs.hpp"

#include <algorithm>
#include <cassert>

#include "models/cost/memory.hpp"
#include "models/network/layer_graph.hpp"

namespace stagecraft {
namespace {

double backward_input(const LayerCost& layer) { return (layer.recompute + layer.backward_input).value(); }

CutCosts::Sums& add(CutCosts::Sums& sums, const LayerCost& layer) {
  sums.forward += layer.forward.value();
  sums.backward_input += backward_input(layer);
  sums.backward_weight += layer.backward_weight.value();
  sums.backward_saving += layer.backward_saving.value();
  sums.optimizer += layer.optimizer.value();
  sums.resident += (layer.weights + layer.gradients + layer.optimizer_state).value();
  sums.reduced += layer.reduced_gradients().value();
  sums.stash += layer.stash.value();
  sums.split += layer.split.value();
  return sums;
}

// The cost of a layer on one type of device.
struct OfLayer {
  std::span<const int> class_of;
  const std::vector<LayerCost>& costs;
  const LayerCost& operator[](LayerId layer) const { return costs[static_cast<std::size_t>(class_of[layer])]; }
};

std::vector<CutCosts::Sums> sum_up(const CutGraph& cuts, const OfLayer& layers) {
  std::vector<CutCosts::Sums> sums(cuts.nodes.size());
  for (std::size_t node = 1; node < cuts.nodes.size(); ++node) {
    sums[node] = sums[static_cast<std::size_t>(cuts.nodes[node].parent)];
    for (const LayerId layer : cuts.groups[static_cast<std::size_t>(cuts.nodes[node].group)]) {
      add(sums[node], layers[layer]);
    }
  }
  return sums;
}

std::vector<double> largest_workspace(const CutGraph& cuts, const OfLayer& layers) {
  std::vector<double> group(cuts.groups.size(), 0);
  for (std::size_t g = 0; g < group.size(); ++g) {
    for (const LayerId layer : cuts.groups[g]) group[g] = std::max(group[g], layers[layer].workspace.value());
  }
  std::vector<double> workspace(cuts.arcs.size());
  for (std::size_t arc = 0; arc < workspace.size(); ++arc) {
    const double before = cuts.arcs[arc].via < 0 ? 0 : workspace[static_cast<std::size_t>(cuts.arcs[arc].via)];
    workspace[arc] = std::max(before, group[static_cast<std::size_t>(cuts.arcs[arc].group)]);
  }
  return workspace;
}

}  // namespace

double tied_share(const Layer& user) {
  return static_cast<double>(user.tied_parameters) / static_cast<double>(std::max<std::int64_t>(user.parameters, 1));
}

std::vector<CutCosts::Sums> cut_sums(const CutGraph& cuts, std::span<const int> class_of,
                                     const std::vector<LayerCost>& costs) {
  return sum_up(cuts, {class_of, costs});
}

CutCosts cut_costs(const CutGraph& cuts, const LayerGraph& graph, std::span<const int> class_of,
                   std::span<const std::vector<LayerCost>> costs, const Workload& workload) {
  CutCosts result;
  for (const std::vector<LayerCost>& of_type : costs) {
    result.sums.push_back(sum_up(cuts, {class_of, of_type}));
    result.workspace.push_back(largest_workspace(cuts, {class_of, of_type}));
  }
  for (const auto& of_type : costs) {
    auto& held = result.held_once.emplace_back();
    for (const CutGraph::Tie& tie : cuts.ties) {
      const Layer& user = graph[tie.user];
      const LayerCost& cost = of_type[static_cast<std::size_t>(class_of[tie.user])];
      const double share = tied_share(user);
      CutCosts::Sums& sums = held.emplace_back();
      sums.optimizer = share * cost.optimizer.value();
      sums.resident = share * (cost.weights + cost.gradients + cost.optimizer_state).value();
      sums.reduced = share * cost.reduced_gradients().value();
    }
  }
  const double element = element_size(workload.precision).value();
  for (const CutGraph::Node& node : cuts.nodes) {
    result.boundary.push_back(element * node.crossing.at(workload.microbatch, workload.sequence));
  }
  for (const CutGraph::Tie& tie : cuts.ties) {
    result.tied +=
        costs.front()[static_cast<std::size_t>(class_of[tie.user])].gradients.value() * tied_share(graph[tie.user]);
  }
  return result;
}

BlockCosts block_costs(const CutGraph& cuts, const LayerGraph& graph, std::span<const int> class_of,
                       std::span<const std::vector<LayerCost>> keeping,
                       std::span<const std::vector<LayerCost>> recomputing) {
  assert(cuts.is_chain());
  BlockCosts result;
  result.before.resize(cuts.nodes.size());
  result.longer.assign(keeping.size(), {0});
  result.smaller = result.longer;
  for (std::size_t node = 1; node < cuts.nodes.size(); ++node) {
    result.before[node] = result.before[node - 1];
    for (const LayerId layer : cuts.groups[static_cast<std::size_t>(cuts.nodes[node].group)]) {
      if (!may_recompute(graph[layer])) continue;
      ++result.before[node];
      for (std::size_t type = 0; type < keeping.size(); ++type) {
        const LayerCost &whole = OfLayer{class_of, keeping[type]}[layer],
                        &again = OfLayer{class_of, recomputing[type]}[layer];
        result.longer[type].push_back(result.longer[type].back() + backward_input(again) - backward_input(whole));
        result.smaller[type].push_back(result.smaller[type].back() + (whole.stash - again.stash).value());
      }
    }
  }
  for (const auto& of_type : recomputing) result.workspace.push_back(largest_workspace(cuts, {class_of, of_type}));
  return result;
}

}  // namespace stagecraft
