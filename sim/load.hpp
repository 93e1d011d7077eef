// How much of a step the GPUs of a plan compute, which cost models may ask for (CostModel::heeds_load).
#pragma once

#include <vector>

#include "models/plan.hpp"

namespace stagecraft {

// Workload::load by stage: what the timeline says that the GPU of the stage's first replica computes of the step. A GPU
// cut into slices computes as many multiprocessors' share as work. REQUIRES: a priced plan.
std::vector<double> stage_loads(const Plan& plan);

}  // namespace stagecraft
