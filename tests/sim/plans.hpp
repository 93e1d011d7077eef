// Plans for the simulators' tests and benchmarks: synthetic costs on clusters made in code.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/network/layer_graph.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft::test {

// Where the devices of a plan are: replica after replica, or stage after stage, in the order of the cluster.
enum class Placement { replica_major, stage_major };

struct PlanShape {
  std::string schedule = "1f1b";
  int ranks = 2;
  int replicas = 1;
  int microbatches = 4;
  bool tied = false;
  Placement placement = Placement::replica_major;
  int devices_per_node = 1;
  int nics = 1;
  int nodes_per_leaf = 1;
  Link local{Seconds(0.001), BytesPerSecond(1e9)};
  Link network{Seconds(0.001), BytesPerSecond(1e9)};
  std::optional<Link> uplink;
  // By stage; the last one repeats.
  std::vector<StageCost> costs{StageCost{}};
};

// Forward, input and weight gradient in seconds; a boundary in bytes.
inline StageCost stage_cost(double forward, double input, double weight, double boundary = 0) {
  StageCost cost;
  cost.forward = Seconds(forward);
  cost.backward_input = Seconds(input);
  cost.backward_weight = Seconds(weight);
  cost.boundary = Bytes(boundary);
  return cost;
}

inline Cluster make_cluster(const PlanShape& shape) {
  Cluster cluster;
  cluster.name = "test";
  cluster.device_types.emplace_back().name = "device";
  cluster.uplink = shape.uplink;
  const int devices = shape.ranks * shape.replicas;
  for (int d = 0; d < devices; ++d) {
    const int node = d / shape.devices_per_node;
    if (d % shape.devices_per_node == 0) {
      cluster.nodes.push_back(Node{"node" + std::to_string(node),
                                   {},
                                   "nvlink",
                                   shape.local,
                                   shape.network,
                                   shape.nics,
                                   node / shape.nodes_per_leaf});
    }
    cluster.nodes.back().devices.push_back(DeviceId{d});
    cluster.devices.push_back({0, node});
  }
  cluster.leaves = cluster.nodes.back().leaf + 1;
  return cluster;
}

// One layer a stage, one stage a rank.
inline Plan make_plan(const PlanShape& shape) {
  Plan plan;
  plan.cluster = make_cluster(shape);
  plan.network.name = "synthetic";
  plan.batch = {std::int64_t{shape.microbatches} * shape.replicas, 1, shape.microbatches, 1};
  plan.schedule = make_schedule(shape.schedule, {shape.ranks, 1, shape.microbatches});
  for (int s = 0; s < shape.ranks; ++s) {
    Layer layer;
    layer.name = "layer" + std::to_string(s);
    layer.parameters = 1;
    if (shape.tied && s > 0 && s + 1 == shape.ranks) {
      layer.tied_to = "layer0";
      layer.tied_parameters = 1;
    }
    const LayerId id = boost::add_vertex(layer, *plan.network.graph);
    if (s > 0) boost::add_edge(id - 1, id, Tensor{}, *plan.network.graph);
    plan.order.push_back(id);
    const auto cost = std::min(static_cast<std::size_t>(s), shape.costs.size() - 1);
    plan.stages.push_back({{s, s + 1}, RankId{s}, shape.costs[cost]});
  }
  plan.devices.resize(static_cast<std::size_t>(shape.replicas));
  for (int d = 0; d < shape.replicas; ++d) {
    for (int r = 0; r < shape.ranks; ++r) {
      const bool by_replica = shape.placement == Placement::replica_major;
      plan.devices[static_cast<std::size_t>(d)].push_back(
          DeviceId{by_replica ? d * shape.ranks + r : r * shape.replicas + d});
    }
  }
  return plan;
}

}  // namespace stagecraft::test
