#include "planner/confirm.hpp"

#include <algorithm>
#include <vector>

#include "sim/simgrid.hpp"

namespace stagecraft {

void confirm(std::span<Plan* const> plans) {
  const std::vector<Seconds> steps = simgrid_steps(std::vector<const Plan*>(plans.begin(), plans.end()));
  for (std::size_t i = 0; i < plans.size(); ++i) plans[i]->prediction.simgrid_step = steps[i];
}

void confirm_best(SearchResult& result, int count) {
  const auto end = result.ranked.begin() + std::min<std::ptrdiff_t>(count, std::ssize(result.ranked));
  std::vector<Plan*> plans;
  for (auto ranked = result.ranked.begin(); ranked != end; ++ranked) plans.push_back(&ranked->plan);
  confirm(plans);
  for (auto ranked = result.ranked.begin(); ranked != end; ++ranked) {
    ranked->candidate.simgrid = ranked->plan.prediction.simgrid_step;
  }
  std::stable_sort(result.ranked.begin(), end, [&](const RankedPlan& a, const RankedPlan& b) {
    return score_of(a.candidate, result.objective) < score_of(b.candidate, result.objective);
  });
}

}  // namespace stagecraft
