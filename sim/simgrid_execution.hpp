// The action lists of a plan, played in SimGrid's virtual time.
#pragma once

#include <simgrid/s4u.hpp>

#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"
#include "sim/folding.hpp"
#include "sim/simgrid_platform.hpp"
#include "sim/timeline.hpp"
#include "sim/traffic.hpp"

namespace stagecraft {

// Plays one step of the representatives. `spans` gets the start and end of their actions, by representative, rank,
// position; it has room for all. Payloads are scaled by `byte_scale`, as the platform's bandwidths are. Throws internal
// where the step does not end. REQUIRES: a fresh engine; the schedule, traffic and folding of the plan.
void execute(simgrid::s4u::Engine& engine, const Plan& plan, const LoweredSchedule& schedule, const Traffic& traffic,
             const Folding& folding, const SimGridPlatform& platform, double byte_scale, Timeline::Span* spans);

}  // namespace stagecraft
