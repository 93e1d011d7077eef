#include "runtime/memory_need.hpp"

#include <algorithm>

#include "runtime/collectives.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/tensor_shard.hpp"
#include "runtime/weight_versions.hpp"
#include "runtime/worker_grid.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t float_bytes = 4;

// The most that are open at once when `opens` and `closes` say what an action does.
template <class Opens, class Closes>
int most_open(const std::vector<Action>& actions, Opens&& opens, Closes&& closes) {
  int open = 0, most = 0;
  for (const Action& action : actions) {
    if (opens(action)) most = std::max(most, ++open);
    if (closes(action)) --open;
  }
  return most;
}

}  // namespace

StageSpec stage_spec(const Plan& plan, std::size_t stage, int shard) {
  const TensorShard tensor = tensor_shard(plan, shard);
  const Batch& batch = plan.batch;
  // An asynchronous update averages over its own micro-batches, not over the step's.
  const bool synchronous = plan.schedule.updates == WeightUpdates::synchronous;
  const std::int64_t samples = synchronous ? batch.global : batch.microbatch * plan.schedule.update_group;
  const double rows = static_cast<double>(samples) * static_cast<double>(batch.sequence);
  return {.transformer = transformer_of(*plan.network.transformer, tensor),
          .layers = plan.stages[stage].layers,
          .shape = {batch.microbatch, batch.sequence / plan.schedule.slices, plan.schedule.slices},
          .microbatches = plan.schedule.microbatches,
          .recompute = plan.recompute,
          .fused_attention = plan.fused_attention,
          .optimizer = plan.optimizer,
          .gradient_scale = static_cast<float>(1.0 / rows),
          .precision = plan.precision,
          .shard = tensor,
          .first_token = shard_range(plan.network.transformer->vocabulary, tensor).first};
}

InFlight count_in_flight(const ComputeSchedule& schedule, const std::vector<Action>& actions,
                         const Placement& placement, RankId rank, StageId stage) {
  const auto is = [&](const Action& action, ActionKind kind) { return action.kind == kind && action.stage == stage; };
  // A slab is taken when the input arrives, or is made here.
  const auto opens = [&](const Action& a) {
    if (is(a, ActionKind::recv_forward)) return true;
    if (stage.value == 0) return is(a, ActionKind::forward);
    return a.kind == ActionKind::forward && a.stage.value + 1 == stage.value &&
           placement.rank(stage, a.microbatch) == rank;
  };
  const auto ends = [&](const Action& a) {
    if (schedule.forward_only) return is(a, ActionKind::forward);
    return is(a, ActionKind::backward) || is(a, ActionKind::backward_weight);
  };
  return {.slabs = most_open(actions, opens, ends),
          .splits = most_open(
              actions, [&](const Action& a) { return is(a, ActionKind::backward_input); },
              [&](const Action& a) { return is(a, ActionKind::backward_weight); }),
          .caches =
              schedule.slices == 1
                  ? 0
                  : most_open(
                        actions, [&](const Action& a) { return opens(a) && a.microbatch.value % schedule.slices == 0; },
                        [&](const Action& a) {
                          if (schedule.forward_only) return ends(a) && (a.microbatch.value + 1) % schedule.slices == 0;
                          const bool made = is(a, ActionKind::backward) || is(a, ActionKind::backward_input);
                          return made && a.microbatch.value % schedule.slices == 0;
                        })};
}

MemoryNeed memory_need(const Plan& plan, const LoweredSchedule& schedule, int rank) {
  MemoryNeed need;
  const auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
  const auto states = static_cast<std::int64_t>(state_names(plan.optimizer).size());
  const Placement placement(plan.schedule);
  std::int64_t workspace = 0;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const StageId id{static_cast<std::int32_t>(s)};
    if (!plan.stages[s].on(RankId{rank})) continue;
    const cpu::StageLayout layout = cpu::lay_out(stage_spec(plan, s));
    const InFlight open = count_in_flight(plan.schedule, actions, placement, RankId{rank}, id);
    need.weights += layout.parameters * float_bytes;
    need.versions += layout.parameters * float_bytes * most_versions(plan.schedule, id);
    need.activations +=
        (layout.slab * open.slabs + layout.split * open.splits + layout.cache * open.caches) * float_bytes;
    need.workspace += layout.rope_table * float_bytes;
    workspace = std::max(workspace, layout.workspace);
    if (s > 0) need.messages += layout.boundary * float_bytes;
    if (s + 1 < plan.stages.size()) need.messages += layout.boundary * float_bytes;
  }
  need.gradients = need.weights;
  need.optimizer_state = need.weights * states;
  need.workspace += (workspace + (worker_count(plan) > 1 ? collective_piece_floats : 0)) * float_bytes;
  return need;
}

std::vector<Bytes> needed_memory(const Plan& plan) {
  const auto& transformer = plan.network.transformer;
  PlanLayout rest = plan.layout;
  rest.tensor = 1;
  rest.sequence_parallel = false;
  if (plan.recompute == Recompute::none) rest.recomputed_layers = all_layers;
  if (rest != PlanLayout{} || !transformer || transformer->experts > 0 || transformer->latent) return {};
  if (!tensor_parallel_fault(*transformer, plan.layout.tensor).empty()) return {};
  const LoweredSchedule schedule = plan.lowered();
  std::vector<Bytes> memory;
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    const DeviceId device = plan.devices.front()[static_cast<std::size_t>(rank)];
    const bool on_gpu = plan.cluster.type_of(device).kind == DeviceKind::gpu;
    memory.emplace_back(static_cast<double>(on_gpu ? cuda::lay_out_rank(plan, schedule, rank).arena_bytes
                                                   : memory_need(plan, schedule, rank).total()));
  }
  return memory;
}

}  // namespace stagecraft
