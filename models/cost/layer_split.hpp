// How blocks are spread over the ranks of a pipeline, which of them recompute, and when their replicas exchange weights
// and gradients: shared by time and memory.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>
#include <vector>

#include "models/cost/schedule_forms.hpp"
#include "models/cost/shard.hpp"
#include "models/layout.hpp"
#include "models/recomputed_layers.hpp"

namespace stagecraft {

// As TrainingJob::stage_blocks says, else ParallelLayout::first_stage_layers. REQUIRES: a layout that
// StepModel::refuse accepts; the job lives longer.
class LayerSplit {
 public:
  LayerSplit(const ParallelLayout& layout, const TrainingJob& job)
      : by_hand_(job.stage_blocks),
        turns_(!by_hand_.empty() && turns_back(layout.schedule)),
        first_fixed_(layout.first_stage_layers != 0),
        last_fixed_(layout.last_stage_layers != 0),
        first_(std::max(0, layout.first_stage_layers)),
        last_(std::max(0, layout.last_stage_layers)),
        pipeline_(layout.pipeline),
        ranks_(layout.pipeline - (first_fixed_ ? 1 : 0) - (last_fixed_ ? 1 : 0)),
        virtual_stages_(layout.virtual_stages),
        dense_(job.network.dense_layers),
        schedule_(layout.schedule) {
    shared_ = static_cast<std::int32_t>(job.network.layers) - first_ - last_;
    each_ = ranks_ > 0 ? shared_ / ranks_ : 0;
    left_over_ = shared_ - each_ * ranks_;
  }

  bool is_by_hand() const { return !by_hand_.empty(); }

  // Whether the ends leave the other ranks what they can share.
  bool adds_up() const { return ranks_ > 0 ? shared_ >= 0 : shared_ == 0; }

  std::int32_t layers(std::int32_t rank) const {
    if (is_by_hand()) return listed(rank);
    if (rank == 0 && first_fixed_) return first_;
    if (rank == pipeline_ - 1 && last_fixed_) return last_;
    if (left_over_ == 0) return each_;
    // What is left over goes to the middle first: positions counted from the middle outwards.
    const std::int32_t position = rank - (first_fixed_ ? 1 : 0);
    const std::int32_t from_middle = std::abs(2 * position - (ranks_ - 1)) - (2 * position < ranks_ - 1 ? 1 : 0);
    return each_ + (from_middle < left_over_ ? 1 : 0);
  }

  // Of the rank's blocks, those among the network's leading dense ones: of stages round after round of the ranks, or
  // every other one the other way, and of a rank's stages the last ones hold what does not divide.
  std::int32_t dense_layers(std::int32_t rank) const {
    std::int64_t left = dense_;
    std::int64_t here = 0;
    const bool turns = turns_back(schedule_);
    for (std::int32_t round = 0; round < virtual_stages_ && left > 0; ++round) {
      for (std::int32_t i = 0; i < pipeline_ && left > 0; ++i) {
        const std::int32_t at = turns && round % 2 == 1 ? pipeline_ - 1 - i : i;
        const auto blocks = std::min(left, stage_layers(round, i, at));
        if (at == rank) here += blocks;
        left -= blocks;
      }
    }
    return static_cast<std::int32_t>(here);
  }

  // Of the ranks between the ends, the first of those with the most blocks. REQUIRES: more than two ranks.
  std::int32_t fullest_inside() const {
    if (is_by_hand()) {
      std::int32_t fullest = 1;
      for (std::int32_t rank = 2; rank + 1 < pipeline_; ++rank) {
        if (listed(rank) > listed(fullest)) fullest = rank;
      }
      return fullest;
    }
    return std::max(1, (first_fixed_ ? 1 : 0) + (ranks_ - std::max(1, left_over_)) / 2);
  }

 private:
  // Of stage `i` of the round, which is on rank `at`.
  std::int64_t stage_layers(std::int32_t round, std::int32_t i, std::int32_t at) const {
    if (is_by_hand())
      return by_hand_[static_cast<std::size_t>(round) * static_cast<std::size_t>(pipeline_) +
                      static_cast<std::size_t>(i)];
    const std::int32_t all = layers(at), left_over = all % virtual_stages_;
    return all / virtual_stages_ + (round >= virtual_stages_ - left_over ? 1 : 0);
  }

  // Of all stages of the rank: round after round of the ranks, or every other one the other way.
  std::int32_t listed(std::int32_t rank) const {
    std::int32_t sum = 0;
    std::size_t stage = 0;
    for (bool back = false; stage < by_hand_.size(); stage += static_cast<std::size_t>(pipeline_)) {
      sum += by_hand_[stage + static_cast<std::size_t>(back ? pipeline_ - 1 - rank : rank)];
      back = turns_ && !back;
    }
    return sum;
  }

  std::span<const std::int32_t> by_hand_;
  bool turns_;
  bool first_fixed_, last_fixed_;
  std::int32_t first_, last_, pipeline_, ranks_;
  std::int32_t shared_ = 0, each_ = 0, left_over_ = 0;
  std::int32_t virtual_stages_;
  std::int64_t dense_;
  PipelineSchedule schedule_;
};

// Of `layers` blocks of a rank, those that recompute. REQUIRES: a number of them that is the same on all ranks.
inline double recomputing(const ParallelLayout& layout, double layers) {
  assert(layout.recompute == Recompute::none || layout.recomputed_layers >= 0);
  return layout.recompute == Recompute::none ? 0 : std::min<double>(layers, layout.recomputed_layers);
}

// The blocks of all ranks, while one layout is judged.
struct Ranks {
  const ParallelLayout& layout;
  LayerSplit split;
  std::vector<RankBlocks> unlike;  // by rank, where they differ in more than how many they are

  RankBlocks blocks(std::int32_t rank) const {
    if (!unlike.empty()) return unlike[static_cast<std::size_t>(rank)];
    const double all = split.layers(rank);
    return {all, recomputing(layout, all), 0};
  }
};

// Whether replicas exchange gradients and weights for every micro-batch, or once a step. Breadth first each stage's
// micro-batches follow one another, so that its weights are gathered and its gradients reduced once for all of them
// (Lamy-Poirier 2023, arXiv 2211.05953, section 3.2).
struct ReplicaExchange {
  bool reduces_each = false, gathers_each = false;
};
inline bool sums_in_pipeline(const ParallelLayout& layout, const FrameworkConstants& framework) {
  return layout.pipeline > 1 && framework.pipelined_sums > 0;
}
inline bool is_breadth_first(const ParallelLayout& layout) { return layout.schedule == PipelineSchedule::looped_bfs; }
inline ReplicaExchange when_exchanged(const ParallelLayout& layout, const FrameworkConstants& framework) {
  const bool each = !is_breadth_first(layout);
  return {layout.zero >= 2 && each && !sums_in_pipeline(layout, framework), layout.zero == 3 && each};
}

// What exchanges of every micro-batch hide behind in a pipeline: the blocks' computation, a third of it before the
// backward. What else takes time, repeated or on the links, is not the same on the slowest rank as on the one that
// exchanges most, and recomputing more or overlapping less would seem to save time.
inline std::pair<double, double> covering(const LayerShard& block, double blocks) {
  const double third = blocks * (block.forward + block.backward_input + block.backward_weight) / 3;
  return {third, 2 * third};
}

inline std::size_t index(Recompute recompute) { return static_cast<std::size_t>(recompute); }

}  // namespace stagecraft
