#include "models/network/layer_graph.hpp"

#include <algorithm>
#include <cassert>
#include <functional>
#include <queue>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

Amount larger(const Amount& a, const Amount& b) {
  return {std::max(a.per_sample, b.per_sample), std::max(a.per_token, b.per_token),
          std::max(a.per_token_pair, b.per_token_pair)};
}

Amount sum(const Amount& a, const Amount& b) {
  return {a.per_sample + b.per_sample, a.per_token + b.per_token, a.per_token_pair + b.per_token_pair};
}

// "'a' -> 'b' -> 'a'". REQUIRES: every layer with `waiting` inputs has one from a layer that waits too, so that walking
// backwards among them must return to a layer already met.
std::string describe_cycle(const LayerGraph& graph, const std::vector<std::size_t>& waiting) {
  constexpr std::size_t shown = 8;
  const auto waits = [&](LayerId layer) { return waiting[layer] > 0; };
  LayerId layer = 0;
  while (!waits(layer)) ++layer;
  std::vector<std::size_t> position(num_vertices(graph), 0);  // in the walk, from 1
  std::vector<LayerId> walk;
  while (position[layer] == 0) {
    walk.push_back(layer);
    position[layer] = walk.size();
    const auto [first, last] = in_edges(layer, graph);
    layer = source(*std::find_if(first, last, [&](auto edge) { return waits(source(edge, graph)); }), graph);
  }
  // Against the walk, from the layer met twice back to itself, is the direction of the edges.
  std::string text = "'" + printable(graph[layer].name) + "'";
  const std::size_t length = walk.size() - position[layer] + 1;
  for (std::size_t i = 0; i < length; ++i) {
    if (length > shown && i == shown - 1) {
      return text + fmt::format(" -> ... ({} layers) -> '{}'", length, printable(graph[layer].name));
    }
    text += " -> '" + printable(graph[walk[walk.size() - 1 - i]].name) + "'";
  }
  return text;
}

}  // namespace

std::int64_t total_parameters(const LayerGraph& graph) {
  std::int64_t total = 0;
  for (LayerId layer = 0; layer < num_vertices(graph); ++layer) {
    total += graph[layer].parameters - graph[layer].tied_parameters;
  }
  return total;
}

std::vector<LayerId> topological_order(const LayerGraph& graph) {
  std::vector<std::size_t> waiting(num_vertices(graph));
  std::priority_queue<LayerId, std::vector<LayerId>, std::greater<>> ready;
  for (LayerId layer = 0; layer < waiting.size(); ++layer) {
    waiting[layer] = in_degree(layer, graph);
    if (waiting[layer] == 0) ready.push(layer);
  }
  std::vector<LayerId> order;
  order.reserve(waiting.size());
  while (!ready.empty()) {
    const LayerId layer = ready.top();
    ready.pop();
    order.push_back(layer);
    for (auto [edge, end] = out_edges(layer, graph); edge != end; ++edge) {
      if (--waiting[target(*edge, graph)] == 0) ready.push(target(*edge, graph));
    }
  }
  if (order.size() < waiting.size()) throw bad_input("layers form a cycle: {}", describe_cycle(graph, waiting));
  return order;
}

Amount cut_elements(const LayerGraph& graph, const std::vector<bool>& done) {
  assert(done.size() == num_vertices(graph));
  Amount total;
  for (LayerId layer = 0; layer < done.size(); ++layer) {
    if (!done[layer]) continue;
    Amount sent;
    for (auto [edge, end] = out_edges(layer, graph); edge != end; ++edge) {
      if (!done[target(*edge, graph)]) sent = larger(sent, graph[*edge].elements);
    }
    total = sum(total, sent);
  }
  return total;
}

bool same_graph(const LayerGraph& a, const LayerGraph& b) {
  if (num_vertices(a) != num_vertices(b) || num_edges(a) != num_edges(b)) return false;
  for (LayerId layer = 0; layer < num_vertices(a); ++layer) {
    if (!(a[layer] == b[layer]) || in_degree(layer, a) != in_degree(layer, b)) return false;
    const auto [first, last] = in_edges(layer, a);
    if (!std::equal(first, last, in_edges(layer, b).first, [&](auto left, auto right) {
          return source(left, a) == source(right, b) && a[left] == b[right];
        })) {
      return false;
    }
  }
  return true;
}

}  // namespace stagecraft
