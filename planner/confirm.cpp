#include "planner/confirm.hpp"

#include <algorithm>
#include <vector>

#include "sim/simgrid.hpp"

namespace stagecraft {

void confirm(std::span<Plan* const> plans) {
  const std::vector<Seconds> steps = simgrid_steps(std::vector<const Plan*>(plans.begin(), plans.end()));
  for (std::size_t i = 0; i < plans.size(); ++i) plans[i]->prediction.simgrid_step = steps[i];
}

void confirm_best(SearchResult& result, int count, int keep) {
  std::vector<RankedPlan>& ranked = result.ranked;
  while (true) {
    std::stable_sort(ranked.begin(), ranked.end(), [&](const RankedPlan& a, const RankedPlan& b) {
      return score_of(a.candidate, result.objective) < score_of(b.candidate, result.objective);
    });
    std::vector<RankedPlan*> unconfirmed;
    std::vector<Plan*> plans;
    for (std::size_t i = 0; i < std::min(ranked.size(), static_cast<std::size_t>(std::max(0, count))); ++i) {
      if (ranked[i].candidate.simgrid) continue;
      unconfirmed.push_back(&ranked[i]);
      plans.push_back(&ranked[i].plan);
    }
    if (plans.empty()) break;
    confirm(plans);
    for (RankedPlan* plan : unconfirmed) plan->candidate.simgrid = plan->plan.prediction.simgrid_step;
  }
  keep_best(result, keep);
}

}  // namespace stagecraft
