// What `plan` says of pipelines and replicas on any devices: tables for people, JSON for programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/plan_options.hpp"
#include "models/json_reader.hpp"
#include "planner/partition_advice.hpp"
#include "planner/scaling.hpp"

namespace stagecraft {

// With --scaling.
struct ScaledPlan {
  ScalePoint point;
  std::optional<RankedPlan> best;  // empty: none fits
};

// All that was found. The options outlive it.
struct PartitionAnswer {
  const PlanOptions& options;
  SearchResult result;  // with verdicts
  // With --explain.
  std::vector<WhatIf> what_if;
  std::vector<OtherCluster> other_clusters;
  std::vector<ScaledPlan> scaling;
  std::vector<RankedPlan> front;  // with --pareto
};

std::string to_text(const PartitionAnswer& answer);
Json to_json(const PartitionAnswer& answer);

}  // namespace stagecraft
