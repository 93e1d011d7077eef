// The last word on a short list of plans: SimGrid's.
#pragma once

#include <span>

#include "models/plan.hpp"
#include "planner/planner.hpp"

namespace stagecraft {

// Predicts the step of each plan with contention (Prediction::simgrid_step), several plans at once. Throws as
// simgrid_steps() and changes nothing then.
void confirm(std::span<Plan* const> plans);

// The same for ranked plans, which are put in the order that the objective has with these steps, until the first
// `count` are all confirmed: contention only adds to a step, so none of the others can be among them. Then as
// keep_best().
void confirm_best(SearchResult& result, int count, int keep);

}  // namespace stagecraft
