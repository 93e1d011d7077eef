// The options of `plan`, which both of its engines read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "planner/layout_space.hpp"
#include "planner/planner.hpp"

namespace stagecraft {

struct PlanOptions {
  std::string network, cluster, profile, output;
  std::vector<std::string> precisions;  // several: layouts only; empty: with_precision() chooses
  std::string precision_note;           // why that one, where it chose
  std::string optimizer = "adamw", recompute;
  std::string schedule, order, framework, objective = "time";
  std::int64_t sequence = 0;  // 0: the profile's, else the network's longest
  std::int64_t microbatch = 0;
  int stages = 0, replicas = 0, devices = 0;
  std::vector<std::int64_t> cuts;
  std::vector<std::int32_t> recomputed_blocks;  // by rank; else LayoutChoices::recomputed_layers
  std::optional<bool> fused_attention;          // empty: as the devices have it
  SearchSpace space;
  LayoutChoices layout;      // but for what the fields above say
  std::vector<int> scaling;  // device counts
  bool weak = false;
  bool explain = false;
  bool pareto = false;
  int confirm = 5;
  std::vector<std::string> prices;  // "4.1" or "A100=4.1": US dollars an hour of one device; else as the cluster says
  bool json = false;
};

// What both engines search in. Throws bad_input for unknown names. REQUIRES: a precision.
SearchSpace search_space(const PlanOptions& options, const Network& network, const Cluster& cluster);

// Plans in the full space of layouts and reports. REQUIRES: why_no_layouts() is empty; a precision.
void plan_layouts(const PlanOptions& options, const Network& network, const Cluster& cluster);

// Plans pipelines and replicas: any graph, unlike devices, measured costs; reports.
void plan_partitions(const PlanOptions& options, const Network& network, const Cluster& cluster);

}  // namespace stagecraft
