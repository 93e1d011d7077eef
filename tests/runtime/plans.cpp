#include "tests/runtime/plans.hpp"

#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"

namespace stagecraft {

Transformer tiny_gpt(bool tied) {
  Transformer t;
  t.family = "gpt2";
  t.layers = 2;
  t.hidden = 16;
  t.heads = t.kv_heads = 2;
  t.head_size = 8;
  t.ffn = 32;
  t.vocabulary = 32;
  t.max_sequence = 16;
  t.tied_head = tied;
  t.qkv_bias = t.linear_bias = true;
  return t;
}

Transformer tiny_llama(bool tied) {
  Transformer t;
  t.family = "llama";
  t.layers = 2;
  t.hidden = 16;
  t.heads = 4;
  t.kv_heads = 2;
  t.head_size = 4;
  t.ffn = 24;
  t.vocabulary = 32;
  t.max_sequence = 64;
  t.tied_head = tied;
  t.norm = NormKind::rms_norm;
  t.position = PositionKind::rotary;
  t.activation = ActivationKind::swiglu;
  return t;
}

Plan make_plan(const Transformer& transformer, const PlanShape& shape) {
  Plan plan;
  plan.network.name = "tiny";
  plan.network.transformer = transformer;
  plan.network.graph = build_graph(transformer);
  plan.order = topological_order(plan.network.graph);
  plan.precision = DataType::fp32;
  plan.optimizer = shape.optimizer;
  plan.recompute = shape.recompute;
  plan.batch = {shape.microbatch * shape.microbatches * shape.replicas, shape.microbatch, shape.microbatches,
                shape.sequence};

  const int stages = static_cast<int>(shape.cuts.size()) + 1;
  const int ranks = stages / shape.stages_per_rank;
  std::int64_t first = 0;
  for (int s = 0; s < stages; ++s) {
    const auto at = static_cast<std::size_t>(s);
    const std::int64_t last = s + 1 < stages ? shape.cuts[at] : transformer.layers + 2;
    plan.stages.push_back({{first, last}, RankId{s % ranks}, {}});
    first = last;
  }
  DeviceType core;
  core.name = "core";
  core.kind = DeviceKind::cpu;
  plan.cluster.name = "test";
  plan.cluster.device_types = {core};
  plan.cluster.nodes.emplace_back();
  plan.layout.tensor = shape.tensor;
  plan.layout.sequence_parallel = shape.sequence_parallel;
  for (int row = 0; row < shape.replicas * shape.tensor; ++row) {
    plan.devices.emplace_back();
    for (int rank = 0; rank < ranks; ++rank) {
      const DeviceId device{static_cast<std::int32_t>(plan.cluster.devices.size())};
      plan.cluster.devices.push_back({0, 0});
      plan.cluster.nodes.front().devices.push_back(device);
      plan.devices.back().push_back(device);
    }
  }
  if (shape.stages_per_rank == 1) {
    plan.schedule = make_schedule(shape.schedule, {ranks, 1, static_cast<int>(shape.microbatches)});
  }
  return plan;
}

Plan make_scheduled_plan(const Transformer& transformer, const ComputeSchedule& schedule, PlanShape shape) {
  const std::int64_t layers = transformer.layers + 2;
  shape.cuts.clear();
  for (std::int64_t s = 1; s < schedule.stages; ++s) shape.cuts.push_back(s * layers / schedule.stages);
  shape.microbatches = schedule.microbatches / schedule.slices;
  shape.schedule = "gpipe";
  Plan plan = make_plan(transformer, shape);
  plan.schedule = schedule;
  const Placement placement(schedule);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const auto& ranks = placement.ranks(StageId{static_cast<std::int32_t>(s)});
    plan.stages[s].rank = ranks.front();
    if (ranks.size() > 1) plan.stages[s].second_rank = ranks.back();
  }
  for (auto& devices : plan.devices) devices.resize(schedule.ranks.size());
  return plan;
}

ComputeSchedule split_backwards(ComputeSchedule schedule) {
  for (auto& actions : schedule.ranks) {
    std::vector<Action> late;
    for (Action& action : actions) {
      if (action.kind != ActionKind::backward) continue;
      action.kind = ActionKind::backward_input;
      late.push_back({ActionKind::backward_weight, action.stage, action.microbatch});
    }
    actions.insert(actions.end(), late.begin(), late.end());
  }
  return schedule;
}

std::string sample_text(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>((i % 5 * 3 + i / 50 * 7) & 31U);
  return text;
}

}  // namespace stagecraft
