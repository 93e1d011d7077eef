// What the layers of a network cost on the devices of a cluster, asked of the cost model once a class of layers.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/network/network.hpp"
#include "planner/cut_graph.hpp"

namespace stagecraft {

// Layers that differ in nothing but their name and their ties.
struct LayerClasses {
  std::vector<int> class_of;             // by LayerId
  std::vector<LayerId> representatives;  // by class
  std::vector<std::int64_t> counts;      // by class
};
LayerClasses classify(const LayerGraph& graph);

// Costs of all classes for one size and number of micro-batches and recomputation, and what follows for any partition.
struct LayerPrices {
  Workload workload;
  std::vector<std::vector<LayerCost>> costs;  // [type][class]
  // [type][busy neighbours][class]: of slices of a GPU; empty for other types.
  std::vector<std::vector<std::vector<LayerCost>>> beside;

  // [type]: of all classes, how many times as long as on the fastest type the one takes that it suits best; 1 or more.
  std::vector<double> slowdown;
  double latency = 0;   // seconds: forward and backward of all layers, each on its fastest type
  double forward = 0;   // seconds: forward alone, likewise
  double resident = 0;  // bytes: weights, gradients and optimizer state of all layers, shared tables once
  double reduced = 0;   // bytes that replicas sum, of all layers, likewise
  double stash = 0;     // bytes, of all layers, one micro-batch
};

class PriceList {
 public:
  // Types that the cost model cannot price (no rate for the precision, no profile) are left out, each with a note.
  // Throws the model's error when that leaves none.
  PriceList(const LayerGraph& graph, const Cluster& cluster, const CostModel& model, Workload base);

  // `sharers`: so many replicas share the optimizer's state (ZeRO 1).
  // The reference stays good, and is the same for what costs the same.
  const LayerPrices& at(std::int64_t microbatch, std::int64_t microbatches, Recompute recompute, int sharers = 1);
  const LayerPrices& base(int sharers = 1) { return at(base_.microbatch, 0, base_.recompute, sharers); }
  // Whether a lighter recomputation costs the same (selective, where attention is fused): not worth a second look.
  bool repeats(std::int64_t microbatch, Recompute recompute);
  const LayerClasses& classes() const { return classes_; }
  const std::vector<int>& types() const { return types_; }  // into Cluster::device_types, priced ones, by index
  int index_of(int device_type) const;                      // into LayerPrices::costs
  std::vector<Overheads> overheads() const;                 // by index
  const std::vector<std::string>& notes() const { return notes_; }

  // The least time (seconds) that the slowest of `stages` stages can take, whatever partition and devices: some stage
  // does at least the mean, some stage holds at least its share of each class, in whole layers.
  double least_bottleneck(const LayerPrices& prices, int stages) const;

 private:
  const LayerGraph& graph_;
  const Cluster& cluster_;
  const CostModel& model_;
  Workload base_;
  LayerClasses classes_;
  std::vector<CutGraph::Tie> ties_;
  std::vector<int> types_;
  std::vector<std::string> notes_;
  std::map<std::tuple<std::int64_t, std::int64_t, Recompute, int>, LayerPrices> prices_;
  std::map<std::pair<std::int64_t, Recompute>, bool> repeats_;
};

}  // namespace stagecraft
