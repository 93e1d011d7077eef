// Prices the layers of a transformer with the constants fitted to a framework's published runs, on each device type of
// a cluster: the shards of the step model (shard.hpp) as costs of whole layers, so that devices may differ.
//
// A group of devices splits its layers by tensor parallelism. What the step model knows of a whole layout is not here:
// overlap between replicas or of tensor-parallel communication, and stragglers. Formulas: docs/cost_model.md.
#pragma once

#include <map>
#include <string>

#include "models/cost/cost.hpp"
#include "models/cost/machine.hpp"
#include "models/network/network.hpp"

namespace stagecraft {

class FrameworkCostModel final : public CostModel {
 public:
  // `sequence_parallel`: groups shard norms and dropouts, too. Throws bad_input for an unknown framework.
  // REQUIRES: a transformer.
  FrameworkCostModel(const Network& network, const Cluster& cluster, const std::string& framework,
                     bool sequence_parallel = true);

  // Throws bad_input as RooflineCostModel, and for a device type that is none of the cluster's nor a group of one.
  // REQUIRES: a layer of the network.
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override;
  Overheads overheads(const DeviceType& device) const override;

 private:
  // Of one device of a group; peaks and bandwidths are those given.
  Machine machine_of_one(const DeviceType& device) const;

  Transformer transformer_;
  std::map<std::string, Machine> machines_;  // by device type
  bool sequence_parallel_;
};

}  // namespace stagecraft
