// Tensor widths that differ along a pipeline: neighbours in a node that split every layer among them (tensor and
// sequence parallelism, Korthikanti et al. 2022) count as one device, of which the search of partitions (planner.hpp)
// knows nothing. One width a device type; every combination is searched. docs/planning.md.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "planner/planner.hpp"

namespace stagecraft {

// The cluster whose devices of type i are groups of widths[i] that follow one another in a node; types are called
// "4-way A100" then (with a prime where a type has that name), figures and ports are those of all devices of a group.
// REQUIRES: widths that divide the devices of every node with that type, 1 where a node mixes types.
Cluster with_groups(const Cluster& cluster, std::span<const int> widths);

// By device type: the widths, ascending from 1, that its nodes and the transformer divide by; for groups 1 alone.
// REQUIRES: a transformer.
std::vector<std::vector<int>> group_widths(const Cluster& cluster, const Network& network, std::int64_t sequence);

// search() for every combination of widths, or for one width of all types, in the space and in those that its
// also_sharded and also_fewest add. Ranked plans carry the clusters of groups
// that they are for. Throws like search(), bad_input for a width that a type cannot have, infeasible for one
// above the limit of devices.
SearchResult search_groups(const Network& network, const Cluster& cluster, const CostModel& model,
                           const SearchSpace& space, std::optional<int> width);

}  // namespace stagecraft
