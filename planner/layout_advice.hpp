// What to tell about layouts in words: where a step's time goes, what it depends on, and why nothing fits.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/error.hpp"
#include "planner/layout_search.hpp"

namespace stagecraft {

// The terms of a step by name, largest first, without those below 0.05 %: {"compute", seconds}.
std::vector<std::pair<std::string, double>> terms_of(const StepEstimate& estimate);

// "out of memory on stage 3 (A100): needs 95.0 GiB, has 80.0 GiB".
std::string why_not(const StepModel& model, const JudgedLayout& judged);

// The same job on a machine with one property scaled: rates, memory or latencies.
struct WhatIf {
  std::string property;               // "local links"
  double factor = 1;                  // 0.5, 0.9, 1.1, 2
  std::optional<double> same_layout;  // seconds a step; empty where it does not fit
  std::optional<JudgedLayout> best;   // planned anew, for halves and doubles; empty where nothing fits
};
// Property by property, by rising factor; planned anew for the objective. REQUIRES: `best` is of the space.
std::vector<WhatIf> what_if(const LayoutSpace& space, const JudgedLayout& best, LayoutObjective objective);

// No layout of the space fits: how near it comes, and which fixed choice to free so that something fits (tried).
// `network` and `cluster` are names.
Error no_layout_fits(const LayoutSpace& space, const std::string& network, const std::string& cluster);

}  // namespace stagecraft
