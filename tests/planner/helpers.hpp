// Small networks with integer costs, and brute force over their cuts.
#pragma once

#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/network/layer_graph.hpp"
#include "planner/cut_costs.hpp"
#include "planner/cut_graph.hpp"
#include "planner/partition.hpp"
#include "planner/planner.hpp"

namespace stagecraft {

using Edges = std::vector<std::pair<int, int>>;

// Layers "0", "1", ... whose tensors have `elements` an edge and sample.
inline LayerGraph make_graph(int layers, const Edges& edges, double elements = 1) {
  LayerGraph graph;
  for (int i = 0; i < layers; ++i) {
    Layer layer;
    layer.name = std::to_string(i);
    layer.kind = "kind" + layer.name;
    boost::add_vertex(layer, graph);
  }
  for (const auto& [from, to] : edges) {
    boost::add_edge(static_cast<LayerId>(from), static_cast<LayerId>(to), Tensor{Amount{elements, 0, 0}}, graph);
  }
  return graph;
}

inline LayerGraph make_chain(int layers, double elements = 1) {
  Edges edges;
  for (int i = 0; i + 1 < layers; ++i) edges.emplace_back(i, i + 1);
  return make_graph(layers, edges, elements);
}

inline LayerCost make_cost(double forward, double backward, double resident = 0, double stash = 0) {
  LayerCost cost;
  cost.forward = Seconds(forward);
  cost.backward_input = Seconds(backward);
  cost.weights = Bytes(resident);
  cost.stash = Bytes(stash);
  return cost;
}

// A link that takes `seconds` for any message.
inline Link delay(double seconds) { return {Seconds(seconds), BytesPerSecond(1e300)}; }

// Nodes of `count` devices each of a type of its own, `speed` FLOPs a second, links without cost.
struct NodeSpec {
  double speed = 1;
  int count = 1;
  double memory = 1e12;
};
inline Cluster make_cluster(const std::vector<NodeSpec>& specs) {
  Cluster cluster;
  cluster.name = "test";
  for (const NodeSpec& spec : specs) {
    DeviceType type;
    type.name = "type" + std::to_string(cluster.device_types.size());
    type.memory = Bytes(spec.memory);
    type.memory_bandwidth = BytesPerSecond(1e12);
    type.peak.fill(FlopsPerSecond(spec.speed));
    Node node;
    node.name = "node" + std::to_string(cluster.nodes.size());
    node.local_kind = "shared-memory";
    node.local = {Seconds(0), BytesPerSecond(1e300)};
    node.network = node.local;
    for (int i = 0; i < spec.count; ++i) {
      node.devices.push_back(DeviceId{static_cast<std::int32_t>(cluster.devices.size())});
      cluster.devices.push_back(
          {static_cast<int>(cluster.device_types.size()), static_cast<int>(cluster.nodes.size())});
    }
    cluster.device_types.push_back(type);
    cluster.nodes.push_back(node);
  }
  return cluster;
}

// Forward: FLOPs over the peak; the backward takes twice that. A parameter takes a byte, and so does a stashed element;
// full recomputation stashes nothing and repeats the forward.
class SimpleModel final : public CostModel {
 public:
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override {
    const double forward =
        layer.matmul_flops.at(workload.microbatch, workload.sequence) / device.peak_of(workload.precision).value();
    LayerCost cost;
    cost.forward = Seconds(forward);
    cost.backward_input = Seconds(forward);
    cost.backward_weight = Seconds(forward);
    cost.weights = Bytes(static_cast<double>(layer.parameters));
    if (workload.recompute == Recompute::full) {
      cost.recompute = Seconds(forward);
    } else {
      cost.stash = Bytes(layer.stash.elements.at(workload.microbatch, workload.sequence));
    }
    return cost;
  }
};

// One byte an element, so that elements are bytes.
inline Workload byte_workload() {
  Workload workload;
  workload.precision = DataType::fp8;
  return workload;
}

// layers[type][layer], each a class of its own.
inline CutCosts price(const CutGraph& cuts, const LayerGraph& graph,
                      const std::vector<std::vector<LayerCost>>& layers) {
  std::vector<int> class_of(layers.front().size());
  std::iota(class_of.begin(), class_of.end(), 0);
  return cut_costs(cuts, graph, class_of, layers, byte_workload());
}

// Calls visit(path) for each path of `stages` arcs from the empty cut to the full one that keeps shared tables apart
// only where that is allowed.
inline void for_each_path(const CutGraph& cuts, int stages, const std::function<void(const std::vector<int>&)>& visit) {
  std::vector<int> path{0};
  const std::function<void()> go = [&] {
    const int stage = static_cast<int>(path.size()) - 1;
    if (stage == stages) {
      if (path.back() == cuts.full()) visit(path);
      return;
    }
    const int from = path.back();
    for (const CutGraph::Arc& arc : cuts.arcs_from(from)) {
      if (!cuts.allowed(from, arc.target, stage, stages)) continue;
      path.push_back(arc.target);
      go();
      path.pop_back();
    }
  };
  go();
}

// Random layers, devices and links with small integers.
struct RandomCase {
  LayerGraph graph;
  CutGraph cuts;
  std::vector<std::vector<LayerCost>> layers;  // [type][layer]
  CutCosts costs;

  RandomCase(std::mt19937& random, LayerGraph g, CutGraph c, int types) : graph(std::move(g)), cuts(std::move(c)) {
    const auto draw = [&](int low, int high) {
      return static_cast<double>(std::uniform_int_distribution<int>(low, high)(random));
    };
    for (int type = 0; type < types; ++type) {
      layers.emplace_back();
      for (std::size_t i = 0; i < boost::num_vertices(graph); ++i) {
        LayerCost cost = make_cost(draw(1, 9), draw(1, 20), draw(1, 9), draw(0, 4));
        cost.backward_weight = Seconds(draw(0, 9));
        cost.optimizer = Seconds(draw(0, 3));
        cost.gradients = Bytes(draw(0, 5));
        cost.workspace = Bytes(draw(0, 3));
        layers.back().push_back(cost);
      }
    }
    costs = price(cuts, graph, layers);
  }

  PartitionProblem problem(std::mt19937& random, int stages, int microbatches, Objective objective,
                           double memory = 1e300) const {
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    PartitionProblem problem{cuts, costs, {}, microbatches, objective, 1, 0};
    for (int s = 0; s < stages; ++s) {
      StageSlot slot;
      slot.type = draw(0, static_cast<int>(costs.sums.size()) - 1);
      slot.memory = memory;
      slot.in_flight = objective == Objective::gpipe ? microbatches : std::min(microbatches, stages - s);
      slot.hop = {Seconds(draw(0, 3)), BytesPerSecond(draw(1, 2))};
      slot.reduce_per_byte = draw(0, 2);
      problem.slots.push_back(slot);
    }
    return problem;
  }
};

// Layers of `flops` each a sample, `parameters` bytes and `stash` bytes a sample.
inline Network make_network(LayerGraph graph, double flops = 1, std::int64_t parameters = 0, double stash = 0) {
  Network network;
  network.name = "test";
  for (LayerId layer = 0; layer < boost::num_vertices(graph); ++layer) {
    graph[layer].kind = "layer";
    graph[layer].matmul_flops.per_sample = flops;
    graph[layer].parameters = parameters;
    graph[layer].stash.elements.per_sample = stash;
  }
  network.graph = std::move(graph);
  return network;
}

inline SearchSpace make_space(std::int64_t global_batch) {
  SearchSpace space;
  space.global_batch = global_batch;
  space.precision = DataType::fp8;
  return space;
}

}  // namespace stagecraft
