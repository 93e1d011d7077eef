// What to tell someone whose constraints no plan satisfies.
#pragma once

#include <span>
#include <string>

#include "models/error.hpp"
#include "planner/judge.hpp"

namespace stagecraft {

// The worst stage of a partition. REQUIRES: cuts of the problem.
Shortage shortage_of(const Cluster& cluster, const PartitionProblem& problem, const Geometry& geometry,
                     std::span<const int> cuts);

// None of `options` fits into memory: which comes nearest, what it lacks, and which fixed option to free so that
// something fits (tried).
Error nothing_fits(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space,
                   Judge& judge, std::span<const LayoutOption> options);

// The options allow no layout at all: why.
Error no_layout(const SearchSpace& space, const LayoutList& listed, int devices);

}  // namespace stagecraft
