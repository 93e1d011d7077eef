// What a rank holds at its peak: Korthikanti et al. 2022 for activations, Rajbhandari et al. 2020 for the rest.
#include <algorithm>

#include "models/cost/layer_split.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/cost/step_model.hpp"

namespace stagecraft {

StageMemory StepModel::memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const {
  const bool first = rank == 0;
  const bool last = rank == layout.pipeline - 1;
  const auto layers = static_cast<double>(LayerSplit(layout, job_.network.layers).layers(rank));
  const LayerShard& block = shard.block;
  double dense = layers * block.parameters;
  if (first) dense += shard.embedding.parameters;
  if (last) dense += shard.head.parameters - (first && job_.network.tied_head ? shard.embedding.parameters : 0);
  const double expert = layers * block.expert_parameters;
  const double replicas = static_cast<double>(layout.data) * layout.context;
  const double in_shards = dense / replicas + expert * layout.expert / replicas;
  const auto held = [&](int from) { return layout.zero >= from ? in_shards : dense + expert; };
  const double weight = std::max(2.0, parameter_bytes_.weight.value());  // fp8 keeps 16-bit weights
  const double copies = weight_copies(layout.schedule);
  StageMemory memory;
  memory.weights = copies * weight * held(3);
  memory.gradients = copies * machine_.framework.gradient_bytes * held(2);
  memory.optimizer_state = layout.offload_optimizer ? 0 : parameter_bytes_.optimizer_state.value() * held(1);

  const double stages =
      stages_in_flight(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, rank);
  const double in_flight = stages / layout.virtual_stages;
  const double repeated = recomputing(layout, layers);
  const std::size_t mode = index(layout.recompute);
  const double kept = repeated * block.stash[mode] + (layers - repeated) * block.stash[0];
  double activations = in_flight * (kept + (first ? shard.embedding.stash[0] : 0));
  // Two layers' worth stays on the device: the one at work and the one on its way.
  if (layout.offload_activations) activations = std::min(activations, 2 * kept / std::max(1.0, layers));
  if (last) activations += shard.head.stash[0];
  memory.activations = activations * (1 + machine_.framework.fragmentation);

  const double brought_back = repeated > 0 ? block.stash[0] - block.stash[mode] : 0;
  memory.workspace = std::max(brought_back + block.workspace, last ? shard.head.workspace : 0);
  // ZeRO 3: the gathered weights of the block at hand and of the next.
  if (layout.zero == 3) memory.workspace += 2 * weight * (block.parameters + block.expert_parameters);
  const int communicators = (layout.tensor > 1) + (layout.context > 1) + (layout.data > 1) + (layout.pipeline > 1);
  memory.reserved = machine_.framework.reserved_bytes + communicators * machine_.framework.communicator_bytes;
  return memory;
}

}  // namespace stagecraft
