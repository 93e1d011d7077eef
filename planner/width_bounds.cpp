#include "planner/width_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stagecraft {

// Memory of a middle rank with one micro-batch in flight and everything recomputed. End stages may be shorter than even
// ones, and then the others are longer: the shortest that the longest can be is the mean, rounded down. Of two ranks
// either may be the longest, and of unlike blocks it may have any: memory is linear in how many of them are dense, but
// for what is there once.
ResidenceBound residence_bound(const StepModel& model, ParallelLayout layout, const Shard& shard,
                               const Residence& residence) {
  layout.microbatches = 1;
  layout.schedule = PipelineSchedule::one_f_one_b;
  layout.virtual_stages = 1;
  layout.first_stage_layers = layout.last_stage_layers = 0;
  layout.recompute = Recompute::full;
  layout.recomputed_layers = all_layers;
  LayoutSpace::apply(residence, layout);
  const std::int64_t least = model.job().network.layers / layout.pipeline;
  const auto mean = static_cast<double>(least);
  const auto most_dense = static_cast<double>(std::min(least, model.job().network.dense_layers));
  const auto total = [&](std::int32_t rank) {
    const auto with = [&](double dense) { return model.memory(layout, shard, rank, {mean, mean, dense}).total(); };
    const double all_alike = with(0);
    if (most_dense == 0) return all_alike;
    const auto apart = [&](auto of) { return std::abs(of(shard.block) - of(shard.dense_block)); };
    double unlike = apart([](const LayerShard& block) { return block.workspace; }) +
                    apart([](const LayerShard& block) { return block.stash[0]; });  // brought back
    if (residence.zero == 3) {
      constexpr double gathered = 2 * 4;  // bytes at most, of two blocks' weights
      unlike += gathered * apart([](const LayerShard& block) { return block.parameters + block.expert_parameters; });
    }
    return std::min(all_alike, with(most_dense)) - unlike;
  };
  double memory = total(layout.pipeline / 2);
  if (layout.pipeline == 2) memory = std::min(memory, total(0));
  const LayerShard& block = shard.mean_block;
  return {with_room(model.optimizer_time(layout, mean * block.parameters, mean * block.expert_parameters)),
          with_room(memory)};
}

double WidthBounds::time(const Widths& widths) {
  const StepModel& model = space_.model();
  const double samples = static_cast<double>(model.job().global_batch) / widths.data;
  const double layers = static_cast<double>(model.job().network.layers) / widths.pipeline;
  return with_room(samples * layers * sample_time(widths));
}

std::vector<ResidenceBound> WidthBounds::residences(const Widths& widths) const {
  const auto flags = space_.sequence_parallel(widths);
  const bool sequence = std::find(flags.begin(), flags.end(), true) != flags.end();
  const ParallelLayout layout = space_.base(widths, space_.microbatches_of(widths).front(), sequence, megatron_order);
  const Shard shard = space_.model().shard(layout);
  std::vector<ResidenceBound> bounds;
  for (const Residence& residence : space_.residences(widths)) {
    bounds.push_back(residence_bound(space_.model(), layout, shard, residence));
  }
  return bounds;
}

double WidthBounds::sample_time(const Widths& widths) {
  const bool folds = widths.folds_experts();
  const auto [entry, is_new] = sample_times_.try_emplace({widths.tensor, widths.context, widths.expert, folds});
  if (!is_new) return entry->second;
  double best = std::numeric_limits<double>::infinity();
  for (const std::int32_t microbatch : all_microbatches()) {
    for (const bool sequence : space_.sequence_parallel(widths)) {
      Widths alone = widths;
      alone.pipeline = 1;
      ParallelLayout layout = space_.base(alone, microbatch, sequence, megatron_order);
      space_.overlap_all(layout);
      const LayerShard block = space_.model().shard(layout).mean_block;
      const double time = computation(block) + block.tensor_forward + block.tensor_backward;
      best = std::min(best, time / microbatch);
    }
  }
  return entry->second = best;
}

const std::vector<std::int32_t>& WidthBounds::all_microbatches() {
  if (microbatches_.empty()) {
    for (const Widths& widths : space_.widths()) {
      const auto sizes = space_.microbatches_of(widths);
      microbatches_.insert(microbatches_.end(), sizes.begin(), sizes.end());
    }
    std::sort(microbatches_.begin(), microbatches_.end());
    microbatches_.erase(std::unique(microbatches_.begin(), microbatches_.end()), microbatches_.end());
  }
  return microbatches_;
}

}  // namespace stagecraft
