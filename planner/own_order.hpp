// Schedules that plan with times (zb-1p, zb-2p, zb-v-auto, searched), made for a plan's own stages.
#pragma once

#include "models/plan.hpp"

namespace stagecraft {

// Replaces the plan's schedule by the one of the same name for the plan's stage times and slowest message; searched may
// use what memory the devices have left. Keeps the schedule where the new one has stages on other ranks, would not fit,
// or would take no less time: the zero-bubble schedulers shorten the longest span of a rank, which is not quite the
// step. REQUIRES: a priced plan, its schedule made by make_schedule().
void adapt_schedule(Plan& plan);

// A time that no order of the plan's computations beats (models/schedule/lower_bound.hpp); reductions and optimizer
// steps come on top. REQUIRES: a priced plan, every stage on one rank.
Seconds order_lower_bound(const Plan& plan);

}  // namespace stagecraft
