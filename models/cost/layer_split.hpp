// How blocks are spread over the ranks of a pipeline, and which of them recompute: shared by time and memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "models/layout.hpp"

namespace stagecraft {

// As ParallelLayout::first_stage_layers says. REQUIRES: a layout that StepModel::refuse accepts.
class LayerSplit {
 public:
  LayerSplit(const ParallelLayout& layout, std::int64_t layers)
      : first_(layout.first_stage_layers),
        last_(layout.last_stage_layers),
        pipeline_(layout.pipeline),
        ranks_(layout.pipeline - (first_ > 0 ? 1 : 0) - (last_ > 0 ? 1 : 0)) {
    const auto shared = static_cast<std::int32_t>(layers) - first_ - last_;
    each_ = ranks_ > 0 ? shared / ranks_ : 0;
    left_over_ = shared - each_ * ranks_;
  }

  std::int32_t layers(std::int32_t rank) const {
    if (rank == 0 && first_ > 0) return first_;
    if (rank == pipeline_ - 1 && last_ > 0) return last_;
    if (left_over_ == 0) return each_;
    // What is left over goes to the middle first: positions counted from the middle outwards.
    const std::int32_t position = rank - (first_ > 0 ? 1 : 0);
    const std::int32_t from_middle = std::abs(2 * position - (ranks_ - 1)) - (2 * position < ranks_ - 1 ? 1 : 0);
    return each_ + (from_middle < left_over_ ? 1 : 0);
  }

 private:
  std::int32_t first_, last_, pipeline_, ranks_;
  std::int32_t each_ = 0, left_over_ = 0;
};

inline std::size_t index(Recompute recompute) { return static_cast<std::size_t>(recompute); }

// Of `layers` blocks of a rank, those that recompute.
inline double recomputing(const ParallelLayout& layout, double layers) {
  return layout.recompute == Recompute::none ? 0 : std::min<double>(layers, layout.recomputed_layers);
}

}  // namespace stagecraft
