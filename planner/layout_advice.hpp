// What to tell about layouts in words: where a step's time goes, what would shorten it, and why nothing fits.
#pragma once

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

// The same job on a machine with one thing better.
struct WhatIf {
  std::string change;      // "local links 2x"
  double same_layout = 0;  // seconds a step
  double best_layout = 0;  // seconds a step, planned anew
  ParallelLayout layout;   // of that plan
};
// REQUIRES: `best` is of the space.
std::vector<WhatIf> what_would_help(const LayoutSpace& space, const JudgedLayout& best);

// No layout of the space fits: how near it comes, and which fixed choice to free so that something fits (tried).
// `network` and `cluster` are names.
Error no_layout_fits(const LayoutSpace& space, const std::string& network, const std::string& cluster);

}  // namespace stagecraft
