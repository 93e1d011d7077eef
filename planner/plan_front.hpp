// The Pareto front of plans on any devices: step time, share of its memory that the fullest device needs, devices.
#pragma once

#include <functional>
#include <vector>

#include "planner/planner.hpp"

namespace stagecraft {

// The fastest plan by the timeline, alone, in a space with fewer devices or less memory. Throws as search().
using FindFastest = std::function<RankedPlan(const SearchSpace&)>;

// Plans of which none is as fast and as small and takes as few devices as another, for at most all of the space's
// devices, half of them, a quarter and so on; most devices first, then fastest. Each is the fastest one within its
// number of devices and share of memory: for every plan that is not listed one is that is as fast, takes as few of
// those numbers of devices and at most `tolerance` more memory. `devices`: of the whole cluster, those of groups
// counted. Objective and `keep` of the space do not count. Empty: none fits.
std::vector<RankedPlan> plan_front(SearchSpace space, int devices, const FindFastest& find, double tolerance = 0.05);

}  // namespace stagecraft
