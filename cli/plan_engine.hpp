// Which of the planner's engines `plan` takes for its inputs. docs/planning.md.
#pragma once

#include <string>
#include <string_view>

#include "cli/plan_options.hpp"

namespace stagecraft {

// Why the full layout space cannot be searched for these inputs; empty when it can.
std::string why_no_layouts(const PlanOptions& options, const Network& network, const Cluster& cluster);

// Where it cannot: whether devices may split layers among them all the same (device_groups.hpp). For that they are GPUs
// to plan for, known by their figures, in nodes that are not all alike.
bool may_group(const PlanOptions& options, const Network& network, const Cluster& cluster);

// Where it cannot: why an option of the layouts means nothing for pipelines and replicas, and what is expected instead;
// empty when they take it.
std::string refuse_here(std::string_view option, const PlanOptions& options, const Network& network,
                        const Cluster& cluster);
}  // namespace stagecraft
