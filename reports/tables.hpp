// Text tables of what the other parts pass around, for `show`: at most 100 columns.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/cost/cost.hpp"
#include "models/json_reader.hpp"
#include "models/network/network.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"
#include "reports/schedule_grid.hpp"

namespace stagecraft {

// Layers grouped by kind, in network order: count, parameters, forward FLOPs a token and stash of one sample, at the
// workload's sequence, precision and recomputation.
std::string network_table(const Network& network, const Workload& workload);
// The same for scripts: {"name", "parameters", "layers", "kinds": [{"kind", "count", "parameters", ...}]}.
Json network_summary(const Network& network, const Workload& workload);

// Device types, nodes grouped by equality, links and fabric.
std::string cluster_table(const Cluster& cluster);

// Layout, then stages with layers, device, costs and memory against what the device has, then the prediction.
std::string plan_table(const Plan& plan);

// The parts of plan_table, for other formats: what the plan is, and its stages with a heading row; a row for each rank
// that runs the stage.
std::vector<std::pair<std::string, std::string>> plan_facts(const Plan& plan);
std::vector<std::vector<std::string>> stage_rows(const Plan& plan);

// What each pipeline rank needs, as predicted or else as its stages' costs say, and what its device has; of one device
// where a group of them counts as one, which hold equal parts.
struct RankMemory {
  Bytes needed;
  Bytes available;
};
std::vector<RankMemory> rank_memory(const Plan& plan);

// Shape, times, makespan, both bubbles, what ranks keep, and the grid. `times` are of every stage, of one micro-batch.
std::string schedule_table(const ComputeSchedule& schedule, const StageTimes& times = {}, double message = 0,
                           const ScheduleGridOptions& grid = {});
// "F 1, I 1, W 1, messages 0.5": of those kinds that the schedule has.
std::string times_text(const ComputeSchedule& schedule, const StageTimes& times, double message);

}  // namespace stagecraft
