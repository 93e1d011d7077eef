// What to tell about layouts in words: where a step's time goes, what it depends on, and why nothing fits.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/error.hpp"
#include "planner/layout_search.hpp"
#include "planner/what_if.hpp"

namespace stagecraft {

// "p8v1t4c1d16b2".
std::string widths_text(const ParallelLayout& layout);

// The terms of a step by name, largest first, without those below 0.05 %: {"compute", seconds}.
std::vector<std::pair<std::string, double>> terms_of(const StepEstimate& estimate);

// "out of memory on stage 3 (A100): needs 95.0 GiB, has 80.0 GiB".
std::string why_not(const StepModel& model, const JudgedLayout& judged);

// Property by property, by rising factor; planned anew for the objective, by the closed form. REQUIRES: `best` is of
// the space.
std::vector<WhatIf> what_if(const LayoutSpace& space, const JudgedLayout& best, LayoutObjective objective);

// No layout of the space fits: how near it comes, and which fixed choice to free so that something fits (tried).
// `network` and `cluster` are names.
Error no_layout_fits(const LayoutSpace& space, const std::string& network, const std::string& cluster);

}  // namespace stagecraft
