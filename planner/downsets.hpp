// All legal cuts of a network with branches: the downsets of its DAG.
//
// A downset holds, with each layer, every layer that one needs. A chain of n layers has n + 1; two parallel branches of
// n layers have (n + 1)^2 and k branches (n + 1)^k, hence the limits.
#pragma once

#include <cstdint>
#include <optional>

#include "planner/cut_graph.hpp"

namespace stagecraft {

struct DownsetLimits {
  std::int64_t cuts = 200'000;
  std::int64_t arcs = 4'000'000;  // pairs of cuts, one inside the other
};

// Every downset and every pair of nested ones. Empty when there are more than the limits allow: the caller falls back
// to linear_cuts and says so. Throws as linear_cuts.
std::optional<CutGraph> downset_cuts(const LayerGraph& graph, const DownsetLimits& limits = {});

}  // namespace stagecraft
