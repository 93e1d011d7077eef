#include "planner/confirm.hpp"

#include <vector>

#include "sim/simgrid.hpp"

namespace stagecraft {

void confirm(std::span<Plan* const> plans) {
  const std::vector<Seconds> steps = simgrid_steps(std::vector<const Plan*>(plans.begin(), plans.end()));
  for (std::size_t i = 0; i < plans.size(); ++i) plans[i]->prediction.simgrid_step = steps[i];
}

}  // namespace stagecraft
