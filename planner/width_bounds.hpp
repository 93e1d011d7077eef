// Lower bounds of what lies below widths of the layout space, before any layout there is judged.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "planner/layout_space.hpp"

namespace stagecraft {

// Bounds are added up in another order than the step they bound: a cut needs this much room.
inline double with_room(double bound) { return bound * (1 - 1e-9); }

// Seconds a micro-batch for one block.
inline double computation(const LayerShard& block) {
  return block.forward + block.backward_input + block.backward_weight;
}
inline double inner_communication(const LayerShard& block) {
  return block.tensor_forward + block.tensor_backward + block.context_forward + block.context_backward +
         block.expert_forward + block.expert_backward;
}

// What layouts with one residence take at least, whatever their shape and recomputation.
struct ResidenceBound {
  double optimizer = 0;  // seconds, beside the blocks' computation
  double memory = 0;     // bytes of the fullest device
};
// REQUIRES: `shard` is that of the layout, which may have any shape.
ResidenceBound residence_bound(const StepModel& model, ParallelLayout layout, const Shard& shard,
                               const Residence& residence);

class WidthBounds {
 public:
  explicit WidthBounds(const LayoutSpace& space) : space_(space) {}

  // Seconds of the blocks' products and inner communication, with the micro-batch and the place on the machine that
  // suit them best.
  double time(const Widths& widths);
  // By residence, with the smallest micro-batch.
  std::vector<ResidenceBound> residences(const Widths& widths) const;

 private:
  double sample_time(const Widths& widths);  // of one block for one sample
  const std::vector<std::int32_t>& all_microbatches();

  const LayoutSpace& space_;
  // By widths that decide, and whether experts are spread over tensor-parallel devices.
  std::map<std::tuple<std::int32_t, std::int32_t, std::int32_t, bool>, double> sample_times_;
  std::vector<std::int32_t> microbatches_;
};

}  // namespace stagecraft
