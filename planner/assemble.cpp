#include "planner/assemble.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "models/recomputed_layers.hpp"
#include "models/version.hpp"
#include "planner/explain.hpp"
#include "planner/own_order.hpp"
#include "sim/load.hpp"
#include "sim/plan_trace.hpp"

namespace stagecraft {

std::string types_along(const Cluster& cluster, const Assignment& assignment) {
  std::string text;
  for (auto at = assignment.types.begin(); at != assignment.types.end();) {
    const auto end = std::find_if(at, assignment.types.end(), [&](int type) { return type != *at; });
    text += fmt::format("{}{}x {}", text.empty() ? "" : ", ", end - at,
                        cluster.device_types[static_cast<std::size_t>(*at)].name);
    at = end;
  }
  return text;
}

DeviceMemory fullest_device(const Plan& plan) {
  DeviceMemory fullest;
  for (std::size_t rank = 0; rank < plan.prediction.peak_memory.size(); ++rank) {
    const DeviceType& type = plan.cluster.type_of(plan.devices.front()[rank]);
    const DeviceMemory memory{plan.prediction.peak_memory[rank] / type.group, type.memory / type.group};
    if (rank == 0 || memory.share() > fullest.share()) fullest = memory;
  }
  return fullest;
}

double price_of(const Plan& plan) {
  double price = 0;
  for (const auto& row : plan.devices) {
    for (const DeviceId device : row) {
      const double each = plan.cluster.type_of(device).price;
      if (!(each > 0)) return 0;
      price += each;
    }
  }
  return price;
}

namespace {

bool has_closed_form(const Layout& layout) { return layout.schedule == "gpipe" || layout.schedule == "1f1b"; }

}  // namespace

PlanMaker::PlanMaker(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space,
                     Judge& judge)
    : network_(network),
      cluster_(cluster),
      model_(model),
      space_(space),
      judge_(judge),
      network_digest_(digest(to_json(network).dump())),
      cluster_digest_(digest(to_json(cluster).dump())) {}

RankedPlan PlanMaker::make(const Judgement& judgement) {
  const Layout layout = judgement.layout();
  RankedPlan ranked;
  Plan& plan = ranked.plan;
  plan.tool_version = version;
  plan.network = network_;
  plan.cluster = cluster_;
  plan.batch = {space_.global_batch, layout.microbatch, layout.microbatches, space_.sequence};
  plan.precision = space_.precision;
  plan.optimizer = space_.optimizer;
  plan.recompute = layout.recompute;
  plan.fused_attention = space_.fused_attention;
  plan.layout.zero = static_cast<std::uint8_t>(layout.zero);
  plan.devices = judgement.geometry->assignment.devices;
  plan.schedule =
      make_schedule(layout.schedule, {layout.ranks, judgement.option.chunks(), static_cast<int>(layout.microbatches)});
  StageRanges ranges = stage_ranges(*judgement.cuts, judgement.partition.cuts);
  plan.order = std::move(ranges.order);
  const Placement placement(plan.schedule);
  for (std::size_t s = 0; s < ranges.stages.size(); ++s) {
    const auto& ranks = placement.ranks(StageId{static_cast<std::int32_t>(s)});
    PlanStage& stage = plan.stages.emplace_back();
    stage.layers = ranges.stages[s];
    stage.rank = ranks.front();
    if (ranks.size() > 1) stage.second_rank = ranks.back();
  }
  if (layout.recomputed_layers) {
    auto& by_rank = plan.layout.recomputed_by_rank;
    by_rank.resize(plan.stages.size());
    for (std::size_t s = 0; s < by_rank.size(); ++s) {
      by_rank[static_cast<std::size_t>(plan.stages[s].rank.value)] = judgement.recomputed[s];
    }
    plan.layout.recomputed_layers = listed_layers;
    ranked.candidate.recomputed = by_rank;
  }
  price(plan, model_);
  const ComputeSchedule usual = plan.schedule;
  if (!has_closed_form(layout)) adapt_schedule(plan);
  if (model_.heeds_load()) price(plan, model_, stage_loads(plan));
  plan.network_digest = network_digest_;
  plan.cluster_digest = cluster_digest_;
  predict(judgement, plan.schedule == usual, ranked);
  return ranked;
}

void PlanMaker::predict(const Judgement& judgement, bool is_usual, RankedPlan& ranked) {
  Plan& plan = ranked.plan;
  const StepCosts costs = step_costs(plan);
  std::optional<Timeline> own;
  if (!is_usual) own.emplace(plan.lowered());
  Timeline& timeline = is_usual ? judge_.timeline(judgement.option, plan.tied_ends()) : *own;
  Candidate& candidate = ranked.candidate;
  candidate.layout = judgement.layout();
  candidate.closed_form = Seconds(judgement.closed_form);
  candidate.timeline = timeline.makespan(costs);
  candidate.breakdown = break_down(timeline, costs);
  candidate.bubble = bubble_of(candidate.breakdown);
  for (const PlanStage& stage : plan.stages) candidate.stages.push_back(stage.layers);
  candidate.devices = types_along(cluster_, judgement.geometry->assignment);
  // Of other schedules it is only a first estimate.
  if (has_closed_form(candidate.layout)) plan.prediction.closed_form_step = candidate.closed_form;
  plan.prediction.timeline_step = candidate.timeline;
  plan.prediction.bubble = candidate.bubble;
  plan.prediction.peak_memory = trace_header(plan, "").peak_memory;
  plan.prediction.peak_memory.resize(static_cast<std::size_t>(plan.ranks()));
  candidate.memory = fullest_device(plan);
  candidate.devices_used = plan.devices_used();
  candidate.price = price_of(plan);
}

}  // namespace stagecraft
