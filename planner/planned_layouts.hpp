// Layouts carried out as plans: the best few of a search judged stage by stage, and the best for several numbers of
// devices.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/plan.hpp"
#include "planner/layout_ranking.hpp"

namespace stagecraft {

struct PlannedLayout {
  JudgedLayout judged;  // by the closed form
  Plan plan;            // with its timeline, and SimGrid's step where it was asked
  // The best prediction there is: SimGrid's, else the timeline's.
  Seconds step() const;
  // Of the fullest device.
  Bytes memory() const;
};

struct PlanningOptions {
  LayoutObjective objective = LayoutObjective::time;
  std::size_t keep = 1;     // layouts to return
  std::size_t confirm = 0;  // of these in SimGrid
  // Steps overlap with the next, which the simulators do not play: the closed form's order stays.
  bool staggered = false;
  // What each rank of a plan will need, where that is known better than by the plan's costs; empty: not for this plan.
  std::function<std::vector<Bytes>(const Plan&)> memory;
};

struct PlannedLayouts {
  std::vector<PlannedLayout> best;  // best first
  // Left out, as they do not fit once whole blocks are placed on stages. None where nothing would be left: then none of
  // the best fits.
  int too_large = 0;
};

// Plans the layouts, which are best first by the closed form, and ranks them by their plans. REQUIRES: at least one;
// the model accepts all.
PlannedLayouts plan_in_full(const StepModel& model, const Network& network, const Cluster& cluster,
                            std::span<const JudgedLayout> layouts, const PlanningOptions& options);

struct ScaledLayout {
  std::int64_t devices = 0, batch = 0;
  std::optional<JudgedLayout> best;  // empty: none fits
};
// The best layout on each number of devices. Throws as scale_points().
std::vector<ScaledLayout> scale(const StepModel& model, const LayoutChoices& choices, LayoutObjective objective,
                                std::span<const int> devices, bool weak);

}  // namespace stagecraft
