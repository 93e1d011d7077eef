#include "planner/own_order.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "models/schedule/lower_bound.hpp"
#include "sim/plan_trace.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

Bytes memory_of(const Plan& plan, std::size_t rank) { return plan.cluster.type_of(plan.devices[0][rank]).memory; }

// Micro-batches that every rank has room for, counted in its whole share of the network.
double room(const Plan& plan) {
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t rank = 0; rank < plan.schedule.ranks.size(); ++rank) {
    Bytes held, workspace, stash;
    for (const PlanStage& stage : plan.stages) {
      if (!stage.on(RankId{static_cast<std::int32_t>(rank)})) continue;
      held += stage.cost.weights + stage.cost.gradients + stage.cost.optimizer_state;
      workspace = std::max(workspace, stage.cost.workspace);
      stash += stage.cost.stash + stage.cost.split;
    }
    if (stash <= Bytes(0)) continue;
    least = std::min(least, (memory_of(plan, rank) - held - workspace).value() / stash.value());
  }
  return std::min(std::floor(least), static_cast<double>(plan.batch.microbatches));
}

ScheduleShape shape_of(const Plan& plan) {
  const int stages = static_cast<int>(plan.stages.size());
  ScheduleShape shape{plan.ranks(), std::max(stages / plan.ranks(), 1), static_cast<int>(plan.batch.microbatches)};
  shape.slices = plan.schedule.slices;
  for (const PlanStage& stage : plan.stages) {
    shape.times.push_back(
        {stage.cost.forward.value(), stage.cost.backward_input.value(), stage.cost.backward_weight.value()});
  }
  const StepCosts costs = step_costs(plan);
  for (std::size_t s = 0; s < costs.hops.size(); ++s) {
    if (plan.stages[s].rank == plan.stages[s + 1].rank) continue;
    shape.message = std::max(shape.message, costs.hops[s].transfer_time(plan.stages[s].cost.boundary).value());
  }
  if (plan.schedule.name == "searched") shape.memory_limit = std::max(room(plan), 0.0);
  return shape;
}

bool fits(const Plan& plan) {
  const std::vector<Bytes> peaks = trace_header(plan, "").peak_memory;
  for (std::size_t rank = 0; rank < plan.schedule.ranks.size(); ++rank) {
    if (peaks[rank] > memory_of(plan, rank)) return false;
  }
  return true;
}

}  // namespace

void adapt_schedule(Plan& plan) {
  const auto& kinds = schedule_kinds();
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const auto& each) { return each.name == plan.schedule.name; });
  const ScheduleShape shape = shape_of(plan);
  if (kind == kinds.end() || !kind->refuse(shape).empty()) return;
  const StepCosts costs = step_costs(plan);
  const Seconds before = Timeline(plan.lowered()).makespan(costs);
  ComputeSchedule old = std::exchange(plan.schedule, make_schedule(kind->name, shape));
  const bool is_better = plan.schedule != old && placement(plan.schedule) == placement(old) && fits(plan) &&
                         Timeline(plan.lowered()).makespan(costs) < before;
  if (!is_better) plan.schedule = std::move(old);
}

Seconds order_lower_bound(const Plan& plan) {
  OrderProblem problem = order_problem(shape_of(plan), plan.schedule);
  problem.activation_limit = std::numeric_limits<int>::max();
  // A message between two ranks of the plan may be quicker than the slowest.
  const StepCosts costs = step_costs(plan);
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t s = 0; s < costs.hops.size(); ++s) {
    if (plan.stages[s].rank == plan.stages[s + 1].rank) continue;
    least = std::min(least, costs.hops[s].transfer_time(plan.stages[s].cost.boundary).value());
  }
  problem.message = std::isfinite(least) ? least : 0;
  return Seconds(lower_bound(problem));
}

}  // namespace stagecraft
