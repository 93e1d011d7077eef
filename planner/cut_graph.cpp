#include "planner/cut_graph.hpp"

#include <algorithm>
#include <cassert>
#include <unordered_map>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

Amount larger(const Amount& a, const Amount& b) {
  return {std::max(a.per_sample, b.per_sample), std::max(a.per_token, b.per_token),
          std::max(a.per_token_pair, b.per_token_pair)};
}

Amount& add(Amount& sum, const Amount& other, double sign = 1) {
  sum.per_sample += sign * other.per_sample;
  sum.per_token += sign * other.per_token;
  sum.per_token_pair += sign * other.per_token_pair;
  return sum;
}

// crossing[i]: elements that cross position i of `order`. Differences where what a layer sends across changes, summed
// up at the end: linear for long chains.
std::vector<Amount> crossings(const LayerGraph& graph, const std::vector<LayerId>& order) {
  std::vector<std::size_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
  std::vector<Amount> change(order.size() + 1);
  std::vector<std::pair<std::size_t, Amount>> consumers;
  for (std::size_t i = 0; i < order.size(); ++i) {
    consumers.clear();
    for (auto [edge, end] = boost::out_edges(order[i], graph); edge != end; ++edge) {
      consumers.emplace_back(place[boost::target(*edge, graph)], graph[*edge].elements);
    }
    std::sort(consumers.begin(), consumers.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    // From the last consumer to the first: before each, the largest of the tensors that are still needed.
    Amount sent;
    for (std::size_t c = 0; c < consumers.size(); ++c) {
      sent = larger(sent, consumers[c].second);
      const std::size_t before = c + 1 < consumers.size() ? consumers[c + 1].first : i;
      if (before == consumers[c].first) continue;
      add(change[before + 1], sent);
      add(change[consumers[c].first + 1], sent, -1);
    }
  }
  Amount running;
  for (Amount& amount : change) amount = add(running, amount);
  change.back() = {};
  return change;
}

}  // namespace

std::int64_t CutGraph::find_arc(int from, int to) const {
  if (is_chain()) return to > from ? first_arc[static_cast<std::size_t>(from)] + to - from - 1 : -1;
  const auto from_here = arcs_from(from);
  const auto found = std::find_if(from_here.begin(), from_here.end(), [&](const Arc& arc) { return arc.target == to; });
  if (found == from_here.end()) return -1;
  return first_arc[static_cast<std::size_t>(from)] + (found - from_here.begin());
}

std::vector<std::vector<int>> CutGraph::neighbours() const {
  std::vector<std::vector<int>> result(nodes.size());
  for (int node = 0; node <= full(); ++node) {
    for (const Arc& arc : arcs_from(node)) {
      if (arc.via >= 0) continue;
      result[static_cast<std::size_t>(node)].push_back(arc.target);
      result[static_cast<std::size_t>(arc.target)].push_back(node);
    }
  }
  return result;
}

std::vector<CutGraph::Tie> shared_tables(const LayerGraph& graph) {
  std::unordered_map<std::string, LayerId> by_name;
  for (LayerId layer = 0; layer < boost::num_vertices(graph); ++layer) by_name.emplace(graph[layer].name, layer);
  std::vector<CutGraph::Tie> ties;
  for (LayerId layer = 0; layer < boost::num_vertices(graph); ++layer) {
    if (graph[layer].tied_to.empty()) continue;
    const auto owner = by_name.find(graph[layer].tied_to);
    if (owner == by_name.end()) {
      throw bad_input("layer '{}' is tied to '{}', which does not exist", printable(graph[layer].name),
                      printable(graph[layer].tied_to));
    }
    ties.push_back({owner->second, layer});
  }
  if (ties.size() > 64) throw bad_input("{} layers share a table with another: expected at most 64", ties.size());
  return ties;
}

void mark_shared_tables(CutGraph& cuts) {
  for (CutGraph::Node& node : cuts.nodes) {
    if (node.parent < 0) continue;
    node.owners = cuts.nodes[static_cast<std::size_t>(node.parent)].owners;
    node.users = cuts.nodes[static_cast<std::size_t>(node.parent)].users;
    for (const LayerId layer : cuts.groups[static_cast<std::size_t>(node.group)]) {
      for (std::size_t tie = 0; tie < cuts.ties.size(); ++tie) {
        if (cuts.ties[tie].owner == layer) node.owners |= std::uint64_t{1} << tie;
        if (cuts.ties[tie].user == layer) node.users |= std::uint64_t{1} << tie;
      }
    }
  }
}

CutGraph linear_cuts(const LayerGraph& graph, std::span<const std::int64_t> positions) {
  CutGraph cuts;
  cuts.order = topological_order(graph);
  cuts.ties = shared_tables(graph);
  const auto layers = static_cast<std::int64_t>(cuts.order.size());
  std::vector<std::int64_t> ends(positions.begin(), positions.end());
  for (std::int64_t i = 1; positions.empty() && i < layers; ++i) ends.push_back(i);
  ends.push_back(layers);
  const std::vector<Amount> crossing = crossings(graph, cuts.order);
  cuts.nodes.emplace_back();
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    assert(begin < end && end <= layers);
    const int group = static_cast<int>(cuts.groups.size());
    cuts.groups.emplace_back(cuts.order.begin() + begin, cuts.order.begin() + end);
    cuts.nodes.push_back({group, group, crossing[static_cast<std::size_t>(end)], 0, 0});
    begin = end;
  }
  const int count = static_cast<int>(cuts.nodes.size());
  cuts.arcs.reserve(static_cast<std::size_t>(count) * static_cast<std::size_t>(count - 1) / 2);
  for (int from = 0; from < count; ++from) {
    cuts.line.push_back(from);
    cuts.first_arc.push_back(static_cast<std::int64_t>(cuts.arcs.size()));
    for (int to = from + 1; to < count; ++to) {
      const int via = to == from + 1 ? -1 : static_cast<int>(cuts.arcs.size()) - 1;
      cuts.arcs.push_back({to, via, to - 1});
    }
  }
  cuts.first_arc.push_back(static_cast<std::int64_t>(cuts.arcs.size()));
  mark_shared_tables(cuts);
  return cuts;
}

std::vector<std::int64_t> even_positions(const LayerGraph& graph, std::int64_t limit) {
  const std::vector<LayerId> order = topological_order(graph);
  // Every layer counts for something, so that layers without FLOPs are spread as well.
  double total = 0;
  std::vector<double> before;
  for (const LayerId layer : order) {
    before.push_back(total);
    total += 1 + graph[layer].matmul_flops.at(1, 1) + graph[layer].attention_flops.at(1, 1);
  }
  std::vector<std::int64_t> positions;
  double next = total / static_cast<double>(limit + 1);
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (before[i] < next) continue;
    positions.push_back(static_cast<std::int64_t>(i));
    while (next <= before[i]) next += total / static_cast<double>(limit + 1);
  }
  return positions;
}

StageRanges stage_ranges(const CutGraph& graph, std::span<const int> cuts) {
  assert(cuts.size() >= 2 && cuts.front() == 0 && cuts.back() == graph.full());
  std::vector<std::size_t> stage_of(graph.order.size(), 0);
  // From the last cut to the first, so that each layer keeps the earliest stage that holds it.
  for (std::size_t stage = cuts.size() - 1; stage > 0; --stage) {
    for (int node = cuts[stage]; graph.nodes[static_cast<std::size_t>(node)].parent >= 0;
         node = graph.nodes[static_cast<std::size_t>(node)].parent) {
      const int group = graph.nodes[static_cast<std::size_t>(node)].group;
      for (const LayerId layer : graph.groups[static_cast<std::size_t>(group)]) stage_of[layer] = stage - 1;
    }
  }
  StageRanges result{graph.order, {}};
  std::stable_sort(result.order.begin(), result.order.end(),
                   [&](LayerId a, LayerId b) { return stage_of[a] < stage_of[b]; });
  std::int64_t first = 0;
  for (std::size_t stage = 0; stage + 1 < cuts.size(); ++stage) {
    std::int64_t last = first;
    while (last < static_cast<std::int64_t>(result.order.size()) &&
           stage_of[result.order[static_cast<std::size_t>(last)]] == stage) {
      ++last;
    }
    result.stages.push_back({first, last});
    first = last;
  }
  return result;
}

}  // namespace stagecraft
