// What `plan` says of parallel layouts: tables for people, JSON for programs.
#pragma once

#include <string>
#include <vector>

#include "cli/plan_options.hpp"
#include "models/json_reader.hpp"
#include "planner/layout_advice.hpp"
#include "planner/planned_layouts.hpp"

namespace stagecraft {

// All that a search in one precision found. Options and model outlive it.
struct LayoutAnswer {
  const PlanOptions& options;
  const StepModel& model;
  std::string precision;
  LayoutResult result;
  PlannedLayouts planned;             // at least one
  std::vector<WhatIf> what_if;        // with --explain
  std::vector<ScaledLayout> scaling;  // with --scaling
};

std::string to_text(const LayoutAnswer& answer);
Json to_json(const LayoutAnswer& answer);

// The time that no order of a searched plan's computations beats; empty for other schedules.
std::string order_bound_text(const Plan& plan);

// The best layout of each precision side by side; nothing for a single one. `best`: the one that was chosen.
std::string precisions_text(const std::vector<LayoutAnswer>& answers, const LayoutAnswer& best);
Json precisions_json(const std::vector<LayoutAnswer>& answers);

}  // namespace stagecraft
