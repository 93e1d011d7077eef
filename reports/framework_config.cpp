#include "reports/framework_config.hpp"

#include <algorithm>
#include <iterator>

#include "models/recomputed_layers.hpp"
#include "models/text.hpp"

namespace stagecraft {

std::vector<ExportTarget> export_targets(const Plan& plan) {
  constexpr std::pair<std::string_view, FrameworkConfig (*)(const Plan&)> targets[] = {
      {"megatron", to_megatron}, {"torchtitan", to_torchtitan}, {"deepspeed", to_deepspeed}, {"nanotron", to_nanotron}};
  std::vector<ExportTarget> result;
  for (const auto& [name, convert] : targets) {
    ExportTarget& target = result.emplace_back(ExportTarget{name, {}});
    try {
      convert(plan);
    } catch (const Error& error) {
      target.refusal = error.what();
      const std::string begin = fmt::format("export --to {}: ", name);
      if (target.refusal.starts_with(begin)) target.refusal.erase(0, begin.size());
    }
  }
  return result;
}

}  // namespace stagecraft

namespace stagecraft::framework {

Error refused(std::string_view framework, const std::string& reason) {
  return bad_input("export --to {}: {}", framework, reason);
}

const Transformer& transformer_of(const Plan& plan, std::string_view framework) {
  if (!plan.network.transformer) {
    throw refused(framework, fmt::format("network '{}' is a graph, the framework builds transformers only",
                                         printable(plan.network.name)));
  }
  if (plan.schedule.forward_only || plan.schedule.updates != WeightUpdates::synchronous) {
    throw refused(framework, fmt::format("schedule '{}' is no synchronous training", printable(plan.schedule.name)));
  }
  if (plan.recompute != Recompute::none && plan.layout.recomputed_layers < 0) {
    throw refused(framework, "it takes one number of recomputed blocks for all ranks; plan with --recompute-layers N");
  }
  for (const DeviceType& type : plan.cluster.device_types) {
    if (type.group == 1) continue;
    throw refused(framework, fmt::format("'{}' is a group of {} devices, and the framework has one tensor width for "
                                         "all ranks",
                                         printable(type.name), type.group));
  }
  return *plan.network.transformer;
}

std::vector<std::int64_t> blocks_by_stage(const Plan& plan) {
  const auto head = static_cast<std::int64_t>(plan.order.size()) - 1;
  std::vector<std::int64_t> blocks;
  for (const PlanStage& stage : plan.stages) {
    blocks.push_back(std::min(stage.layers.last, head) - std::max<std::int64_t>(stage.layers.first, 1));
  }
  return blocks;
}

bool recomputes_all(const Plan& plan) {
  const auto blocks = blocks_by_stage(plan);
  std::vector<std::int64_t> by_rank(static_cast<std::size_t>(plan.ranks()));
  for (std::size_t s = 0; s < blocks.size(); ++s) {
    by_rank[static_cast<std::size_t>(plan.stages[s].rank.value)] += blocks[s];
  }
  return plan.layout.recomputed_layers >= *std::max_element(by_rank.begin(), by_rank.end());
}

bool repeats_attention(const Plan& plan) { return plan.recompute == Recompute::selective && !plan.fused_attention; }

bool is_plain(const ComputeSchedule& schedule) {
  const auto& kinds = schedule_kinds();
  const bool known =
      std::any_of(kinds.begin(), kinds.end(), [&](const ScheduleKind& kind) { return kind.name == schedule.name; });
  const auto ranks = static_cast<int>(schedule.ranks.size());
  if (!known || schedule.slices > 1 || schedule.stages % ranks != 0) return false;
  return make_schedule(schedule.name, {ranks, schedule.stages / ranks, schedule.microbatches}) == schedule;
}

std::string comments(const std::vector<std::string>& remarks) {
  std::string text;
  for (const std::string& remark : remarks) text += "# " + remark + "\n";
  return text;
}

std::string launch_remark(const Plan& plan) {
  const auto devices = std::ssize(plan.devices) * plan.ranks();
  const auto a_node = std::ssize(plan.cluster.node_of(plan.devices.front().front()).devices);
  if (devices <= a_node) return fmt::format("start {} on one node", counted(devices, "process"));
  return fmt::format("start {}, {} a node", counted(devices, "process"), a_node);
}

}  // namespace stagecraft::framework
