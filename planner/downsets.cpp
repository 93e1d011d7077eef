#include "planner/downsets.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "models/network/layer_graph.hpp"

namespace stagecraft {
namespace {

using Bits = std::vector<std::uint64_t>;  // by layer

struct BitsHash {
  std::size_t operator()(const Bits& bits) const {
    std::uint64_t hash = 0x9e3779b97f4a7c15U;
    for (const std::uint64_t word : bits) {
      hash = (hash ^ word) * 0xff51afd7ed558ccdU;
      hash ^= hash >> 32U;
    }
    return static_cast<std::size_t>(hash);
  }
};

bool has(const Bits& bits, LayerId layer) { return (bits[layer / 64] >> (layer % 64) & 1U) != 0; }

// A cut and the cuts with exactly one layer more.
struct Cover {
  int target;
  int group;  // the layer
};

class Downsets {
 public:
  Downsets(const LayerGraph& graph, const DownsetLimits& limits)
      : graph_(graph), limits_(limits), layers_(boost::num_vertices(graph)) {}

  std::optional<CutGraph> build() {
    cuts_.order = topological_order(graph_);
    cuts_.ties = shared_tables(graph_);
    for (LayerId layer = 0; layer < layers_; ++layer) cuts_.groups.push_back({layer});
    if (!enumerate() || !connect()) return std::nullopt;
    mark_shared_tables(cuts_);
    follow_order();
    return std::move(cuts_);
  }

 private:
  // Breadth first, so that nodes come by rising number of layers.
  bool enumerate() {
    constexpr std::size_t max_words = 1'000'000;  // of membership: bounds the time of the enumeration as well
    std::unordered_map<Bits, int, BitsHash> known;
    std::vector<const Bits*> members;  // into `known`, whose keys stay where they are
    const Bits empty((layers_ + 63) / 64, 0);
    members.push_back(&known.emplace(empty, 0).first->first);
    cuts_.nodes.emplace_back();
    for (std::size_t node = 0; node < members.size(); ++node) {
      const Bits& inside = *members[node];
      covers_.emplace_back();
      for (LayerId layer = 0; layer < layers_; ++layer) {
        if (has(inside, layer) || !ready(inside, layer)) continue;
        Bits next = inside;
        next[layer / 64] |= std::uint64_t{1} << (layer % 64);
        const auto [entry, is_new] = known.emplace(std::move(next), static_cast<int>(members.size()));
        covers_[node].push_back({entry->second, static_cast<int>(layer)});
        if (!is_new) continue;
        members.push_back(&entry->first);
        cuts_.nodes.push_back({static_cast<int>(node), static_cast<int>(layer), crossing(entry->first), 0, 0});
        if (static_cast<std::int64_t>(members.size()) > limits_.cuts || members.size() * empty.size() > max_words) {
          return false;
        }
      }
    }
    return true;
  }

  bool ready(const Bits& inside, LayerId layer) const {
    const auto [first, last] = boost::in_edges(layer, graph_);
    return std::all_of(first, last, [&](auto edge) { return has(inside, boost::source(edge, graph_)); });
  }

  Amount crossing(const Bits& inside) const {
    std::vector<bool> done(layers_);
    for (LayerId layer = 0; layer < layers_; ++layer) done[layer] = has(inside, layer);
    return cut_elements(graph_, done);
  }

  // From every cut to all that contain it, following covers; nodes by rising number give each arc after its `via`.
  bool connect() {
    const std::size_t count = cuts_.nodes.size();
    std::vector<int> arc_to(count, -1);
    for (std::size_t from = 0; from < count; ++from) {
      const auto begin = static_cast<std::int64_t>(cuts_.arcs.size());
      cuts_.first_arc.push_back(begin);
      for (const Cover& cover : covers_[from]) append(cover, -1, arc_to);
      for (auto at = static_cast<std::size_t>(begin); at < cuts_.arcs.size(); ++at) {
        for (const Cover& cover : covers_[static_cast<std::size_t>(cuts_.arcs[at].target)]) {
          append(cover, static_cast<int>(at), arc_to);
        }
        if (static_cast<std::int64_t>(cuts_.arcs.size()) > limits_.arcs) return false;
      }
      for (auto at = static_cast<std::size_t>(begin); at < cuts_.arcs.size(); ++at) {
        arc_to[static_cast<std::size_t>(cuts_.arcs[at].target)] = -1;
      }
    }
    cuts_.first_arc.push_back(static_cast<std::int64_t>(cuts_.arcs.size()));
    return true;
  }

  void append(const Cover& cover, int via, std::vector<int>& arc_to) {
    int& known = arc_to[static_cast<std::size_t>(cover.target)];
    if (known >= 0) return;
    known = static_cast<int>(cuts_.arcs.size());
    cuts_.arcs.push_back({cover.target, via, cover.group});
  }

  void follow_order() {
    cuts_.line.push_back(0);
    for (const LayerId layer : cuts_.order) {
      const auto& covers = covers_[static_cast<std::size_t>(cuts_.line.back())];
      const auto next = std::find_if(covers.begin(), covers.end(),
                                     [&](const Cover& cover) { return cover.group == static_cast<int>(layer); });
      cuts_.line.push_back(next->target);
    }
  }

  const LayerGraph& graph_;
  const DownsetLimits& limits_;
  std::size_t layers_;
  CutGraph cuts_;
  std::vector<std::vector<Cover>> covers_;  // by node
};

}  // namespace

std::optional<CutGraph> downset_cuts(const LayerGraph& graph, const DownsetLimits& limits) {
  // At least one cut a layer: a long network is refused before any work.
  if (static_cast<std::int64_t>(boost::num_vertices(graph)) >= limits.cuts) return std::nullopt;
  return Downsets(graph, limits).build();
}

}  // namespace stagecraft
