// Prices layers from the device's peaks and the fractions of them that are reached.
//
// Forward = products with weights + attention products + memory-bound operations + launch. docs/cost_model.md.
#pragma once

#include "models/cost/cost.hpp"

namespace stagecraft {

class RooflineCostModel final : public CostModel {
 public:
  // Throws bad_input when the device has no rate for the workload's precision, naming those that it has.
  // REQUIRES: microbatch and sequence above zero.
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override;
  // What frameworks leave of a GPU's memory is less than what it has.
  Overheads overheads(const DeviceType& device) const override;
};

}  // namespace stagecraft
