// How busy the GPUs of a plan are while its stages compute, which cost models may ask for (CostModel::heeds_load).
#pragma once

#include <vector>

#include "models/plan.hpp"

namespace stagecraft {

// Workload::load by stage, of the first replica's GPU, as the timeline plays the plan. A GPU cut into slices computes
// as many multiprocessors' share as work. What computed before counts less the longer ago it was, with a time constant
// of clock_lag; a step follows equal steps. REQUIRES: a priced plan.
std::vector<Load> stage_loads(const Plan& plan);

}  // namespace stagecraft
