// What a rank holds at its peak: Korthikanti et al. 2022 for activations, Rajbhandari et al. 2020 for the rest.
#include <algorithm>
#include <cmath>

#include "models/cost/layer_split.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/cost/step_model.hpp"

namespace stagecraft {

StageMemory StepModel::memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const {
  return memory(layout, shard, rank,
                {static_cast<double>(layers_of(layout, rank)), static_cast<double>(recomputed_of(layout, shard, rank)),
                 static_cast<double>(dense_layers_of(layout, rank))});
}

std::int64_t StepModel::recomputed_of(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const {
  return recomputed_of(layout, shard, rank, layers_of(layout, rank),
                       static_cast<double>(dense_layers_of(layout, rank)));
}

// The fewest blocks with which the rank fits: beyond the first, which brings its workspace along, each saves as much.
std::int64_t StepModel::recomputed_of(const ParallelLayout& layout, const Shard& shard, std::int32_t rank,
                                      std::int64_t layers, double dense) const {
  if (layout.recompute == Recompute::none) return 0;
  if (layout.recomputed_layers == listed_layers) {
    return std::min<std::int64_t>(layers, job_.recomputed_blocks[static_cast<std::size_t>(rank)]);
  }
  if (layout.recomputed_layers != fewest_layers) return std::min<std::int64_t>(layers, layout.recomputed_layers);
  const double capacity = machine_.device.memory.value();
  const auto excess = [&](std::int64_t repeated) {
    const RankBlocks blocks{static_cast<double>(layers), static_cast<double>(repeated), dense};
    return memory(layout, shard, rank, blocks).total() - capacity;
  };
  if (layers == 0 || excess(0) <= 0) return 0;
  const double with_one = excess(1), with_all = excess(layers);
  if (with_one <= 0 || layers == 1) return 1;
  if (with_all > 0) return layers;
  const double each = (with_one - with_all) / static_cast<double>(layers - 1);
  auto fewest = std::clamp<std::int64_t>(1 + static_cast<std::int64_t>(std::ceil(with_one / each)), 2, layers);
  // The division may be off by a rounding.
  while (fewest < layers && excess(fewest) > 0) ++fewest;
  while (fewest > 2 && excess(fewest - 1) <= 0) --fewest;
  return fewest;
}

StageMemory StepModel::memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank,
                              const RankBlocks& blocks) const {
  const bool first = rank == 0;
  const bool last = rank == layout.pipeline - 1;
  const auto [layers, repeated, dense_layers] = blocks;
  const MeanBlock mean(shard, layers, dense_layers);
  const LayerShard& block = *mean;
  double dense = layers * block.parameters;
  if (first) dense += shard.embedding.parameters;
  if (last) dense += shard.head.parameters - (first && job_.network.tied_head ? shard.embedding.parameters : 0);
  const double expert = layers * block.expert_parameters;
  const double replicas = static_cast<double>(layout.data) * layout.context;
  double in_shards = dense / replicas;
  if (expert > 0) in_shards += expert * layout.expert / static_cast<double>(expert_devices(layout));
  // Of weights or gradients that are whole while they are in use: those of all stages where the framework keeps them
  // so, and breadth first those of a stage for all of its micro-batches, while the next one's are on their way.
  double whole = 0;
  if (layout.zero >= 2 && sums_in_pipeline(layout, machine_.framework)) whole = 1;
  if (layout.zero >= 2 && is_breadth_first(layout)) whole = std::min(1.0, 2.0 / layout.virtual_stages);
  const auto held = [&](int from) {
    return layout.zero >= from ? (from == 1 ? in_shards : in_shards + whole * (dense + expert - in_shards))
                               : dense + expert;
  };
  const double weight = parameter_bytes_.weight.value();
  const double copies = weight_copies(layout.schedule);
  StageMemory memory;
  memory.weights = copies * weight * held(3);
  memory.gradients = copies * machine_.framework.gradient_bytes * held(2);
  memory.optimizer_state = layout.offload_optimizer ? 0 : parameter_bytes_.optimizer_state.value() * held(1);

  const double stages =
      is_timed(layout.schedule) && layout.pipeline > 1
          ? times_->stages_in_flight(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, rank)
          : stages_in_flight(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, rank);
  const double in_flight = stages / layout.virtual_stages;
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
  if (layout.zero == 3 && whole == 0) memory.workspace += 2 * weight * (block.parameters + block.expert_parameters);
  const int communicators = (layout.tensor > 1) + (layout.context > 1) + (layout.data > 1) + (layout.pipeline > 1);
  memory.reserved = machine_.framework.reserved_bytes + communicators * machine_.framework.communicator_bytes;
  return memory;
}

// With the same number of recomputed blocks on all ranks, the first rank has the most in flight, the second may have
// more layers, the middle has the most layers, the last the head. Otherwise any rank may be the fullest.
void StepModel::find_fullest(const ParallelLayout& layout, const Shard& shard, const Ranks& ranks,
                             StepEstimate& estimate) const {
  estimate.memory = memory(layout, shard, 0, ranks.blocks(0));
  double most = estimate.memory.total();
  const auto look_at = [&](std::int32_t rank) {
    if (rank == estimate.worst_rank) return;
    const StageMemory needed = memory(layout, shard, rank, ranks.blocks(rank));
    if (needed.total() <= most) return;
    most = needed.total();
    estimate.memory = needed;
    estimate.worst_rank = rank;
  };
  const std::int32_t last = layout.pipeline - 1;
  const LayerSplit& split = ranks.split;
  if (!ranks.unlike.empty()) {
    for (std::int32_t rank = 1; rank <= last; ++rank) look_at(rank);
  } else {
    if (split.layers(1) > split.layers(0)) look_at(1);
    if (last > 1 && split.layers(split.fullest_inside()) > split.layers(1)) look_at(split.fullest_inside());
    look_at(last);
  }
  estimate.fits = most <= machine_.device.memory.value();
}

}  // namespace stagecraft
