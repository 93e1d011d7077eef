// Text tables of what the other parts pass around, for `show`: at most 100 columns.
#pragma once

#include <string>

#include "models/cluster/cluster.hpp"
#include "models/cost/cost.hpp"
#include "models/json_reader.hpp"
#include "models/network/network.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Layers grouped by kind, in network order: count, parameters, forward FLOPs a token and stash of one sample, at the
// workload's sequence and precision (stash without recomputation unless the workload says selective).
std::string network_table(const Network& network, const Workload& workload);
// The same for scripts: {"name", "parameters", "layers", "kinds": [{"kind", "count", "parameters", ...}]}.
Json network_summary(const Network& network, const Workload& workload);

// Device types, nodes grouped by equality, links and fabric.
std::string cluster_table(const Cluster& cluster);

// Layout, then stages with layers, device, costs and memory against what the device has, then the prediction.
std::string plan_table(const Plan& plan);

// Shape, micro-batches in flight a rank, and the grid.
std::string schedule_table(const ComputeSchedule& schedule);

}  // namespace stagecraft
