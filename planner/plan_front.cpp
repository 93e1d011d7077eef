#include "planner/plan_front.hpp"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "models/error.hpp"

namespace stagecraft {
namespace {

// Step, share of memory and devices.
auto numbers(const RankedPlan& plan) {
  const Candidate& candidate = plan.candidate;
  return std::tuple(candidate.timeline->value(), candidate.memory.share(), candidate.devices_used);
}

bool is_beaten(const RankedPlan& plan, const RankedPlan& other) {
  const auto [step, share, devices] = numbers(plan);
  const auto [its_step, its_share, its_devices] = numbers(other);
  return its_step <= step && its_share <= share && its_devices <= devices && numbers(other) != numbers(plan);
}

std::optional<RankedPlan> fastest(const SearchSpace& space, const FindFastest& find) {
  try {
    return find(space);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::infeasible) throw;
    return std::nullopt;
  }
}

}  // namespace

std::vector<RankedPlan> plan_front(SearchSpace space, int devices, const FindFastest& find, double tolerance) {
  constexpr double least_step = 1e-9;  // less is a matter of rounding
  space.objective = LayoutObjective::time;
  space.keep = 1;
  space.advise = false;
  std::vector<RankedPlan> all;
  const double most = space.memory_share;
  for (int limit = std::min(devices, space.devices.value_or(devices)); limit > 0; limit /= 2) {
    space.devices = limit;
    space.memory_share = most;
    while (auto found = fastest(space, find)) {
      space.memory_share =
          std::min(space.memory_share, found->candidate.memory.share()) * (1 - std::max(tolerance, least_step));
      all.push_back(std::move(*found));
    }
  }
  std::vector<RankedPlan> front;
  for (const RankedPlan& plan : all) {
    const auto covers = [&](const RankedPlan& other) { return is_beaten(plan, other); };
    const auto same = [&](const RankedPlan& other) { return numbers(other) == numbers(plan); };
    if (std::none_of(all.begin(), all.end(), covers) && std::none_of(front.begin(), front.end(), same))
      front.push_back(plan);
  }
  std::stable_sort(front.begin(), front.end(), [](const RankedPlan& a, const RankedPlan& b) {
    const auto [a_step, a_share, a_devices] = numbers(a);
    const auto [b_step, b_share, b_devices] = numbers(b);
    return std::tuple(-a_devices, a_step) < std::tuple(-b_devices, b_step);
  });
  return front;
}

}  // namespace stagecraft
