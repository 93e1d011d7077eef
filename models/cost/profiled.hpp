// Prices layers by measurement: interpolates a profile's samples.
//
// Times and stash are linear in the micro-batch between neighbouring samples; beyond the first and the last sample the
// line through the nearest two goes on (never below zero); a single sample scales in proportion. A GPU's clock follows
// its load, and times a power of the clock, as measured. Bytes of weights, gradients and optimizer are
// those of memory.hpp. docs/cost_model.md.
#pragma once

#include "models/cost/cost.hpp"
#include "models/profile.hpp"

namespace stagecraft {

class ProfiledCostModel final : public CostModel {
 public:
  explicit ProfiledCostModel(Profile profile) : profile_(std::move(profile)) {}

  // Throws bad_input naming what differs when the profile is of another device type, sequence length, precision or
  // optimizer, and what is missing when it has no such layer kind and recompute mode, or one of another size.
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override;
  Overheads overheads(const DeviceType& device) const override;
  // Measured, of every kind of layer in the profile.
  bool knows(Recompute recompute) const override;
  bool heeds_load() const override;
  bool heeds_microbatches() const override;

 private:
  const LayerProfile& find(const Layer& layer, const Workload& workload) const;
  // Beside neighbours that do forwards, if the workload asks for that and it was measured.
  const LayerProfile* find_beside_forwards(const Layer& layer, const Workload& workload) const;
  // Under every condition that was measured while the neighbours did what they do in a step.
  std::vector<const LayerProfile*> find_all(const Layer& layer, const Workload& workload) const;

  Profile profile_;
};

}  // namespace stagecraft
