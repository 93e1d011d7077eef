#include "planner/planned_layouts.hpp"

#include <algorithm>

#include "models/text.hpp"
#include "planner/confirm.hpp"
#include "planner/layout_advice.hpp"
#include "planner/layout_plan.hpp"
#include "planner/scaling.hpp"

namespace stagecraft {
namespace {

bool fits(const PlannedLayout& planned) {
  return planned.memory() <= planned.plan.cluster.type_of(planned.plan.devices.front().front()).memory;
}

LayoutScore score(const PlannedLayout& planned, LayoutObjective objective) {
  return score_of(objective, planned.judged.layout, planned.step().value(), planned.memory().value());
}

}  // namespace

Seconds PlannedLayout::step() const {
  const Prediction& prediction = plan.prediction;
  return prediction.simgrid_step ? *prediction.simgrid_step : *prediction.timeline_step;
}

Bytes PlannedLayout::memory() const {
  const std::vector<Bytes>& peaks = plan.prediction.peak_memory;
  return *std::max_element(peaks.begin(), peaks.end());
}

PlannedLayouts plan_in_full(const StepModel& model, const Network& network, const Cluster& cluster,
                            std::span<const JudgedLayout> layouts, const PlanningOptions& options) {
  PlannedLayouts planned;
  std::vector<PlannedLayout> too_large;
  for (const JudgedLayout& judged : layouts) {
    if (planned.best.size() == std::max(options.keep, options.confirm)) break;
    PlannedLayout next{judged, make_plan(model, network, cluster, judged.layout)};
    if (options.memory) {
      if (std::vector<Bytes> memory = options.memory(next.plan); !memory.empty()) {
        next.plan.prediction.peak_memory = std::move(memory);
      }
    }
    (fits(next) ? planned.best : too_large).push_back(std::move(next));
  }
  if (planned.best.empty()) {
    planned.best = std::move(too_large);
  } else {
    planned.too_large = static_cast<int>(too_large.size());
  }
  const auto is_better = [&](const PlannedLayout& a, const PlannedLayout& b) {
    return score(a, options.objective) < score(b, options.objective);
  };
  const auto rank = [&](auto end) {
    if (!options.staggered) std::stable_sort(planned.best.begin(), end, is_better);
  };
  rank(planned.best.end());
  const auto end = planned.best.begin() + static_cast<std::ptrdiff_t>(std::min(options.confirm, planned.best.size()));
  std::vector<Plan*> plans;
  for (auto at = planned.best.begin(); at != end; ++at) plans.push_back(&at->plan);
  confirm(plans);
  rank(end);
  planned.best.erase(planned.best.begin() + static_cast<std::ptrdiff_t>(std::min(options.keep, planned.best.size())),
                     planned.best.end());
  return planned;
}

std::vector<ScaledLayout> scale(const StepModel& model, const LayoutChoices& choices, LayoutObjective objective,
                                std::span<const int> devices, bool weak) {
  std::vector<ScaledLayout> scaled;
  for (const auto& [count, global_batch] : scale_points(devices, model.job().global_batch, weak, choices.devices)) {
    TrainingJob job = model.job();
    job.global_batch = global_batch;
    const StepModel scaled_model(job, model.machine());
    LayoutChoices there = choices;
    there.devices = count;
    scaled.push_back({count, job.global_batch, {}});
    try {
      const LayoutSpace space(scaled_model, there);
      const LayoutResult result = search_layouts(space, {.objective = objective, .keep = 1, .near_misses = 0});
      if (!result.best.empty()) scaled.back().best = result.best.front();
    } catch (const Error& error) {  // on so many devices the choices allow no layout at all
      if (error.kind() != ErrorKind::infeasible) throw;
    }
  }
  return scaled;
}

}  // namespace stagecraft
