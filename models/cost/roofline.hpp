// Prices layers from the device's peaks and the fractions of them that are reached.
//
// Forward = products with weights + attention products + memory-bound operations + launch. docs/cost_model.md.
#pragma once

#include "models/cost/cost.hpp"

namespace stagecraft {

// What drivers and frameworks take of a GPU's memory; nothing of those that are here, whose memory is what they leave.
Bytes reserved_memory(const Cluster& cluster);

class RooflineCostModel final : public CostModel {
 public:
  // `reserved`: of every whole GPU.
  explicit RooflineCostModel(Bytes reserved = Bytes(0)) : reserved_(reserved) {}

  // Throws bad_input when the device has no rate for the workload's precision, naming those that it has.
  // REQUIRES: microbatch and sequence above zero.
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override;
  Overheads overheads(const DeviceType& device) const override;

 private:
  Bytes reserved_;
};

}  // namespace stagecraft
