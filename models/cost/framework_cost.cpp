#include "models/cost/framework_cost.hpp"

#include "models/cost/memory.hpp"
#include "models/cost/shard.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// The first node with this type, alone.
Cluster node_with(const Cluster& cluster, std::size_t type) {
  Cluster one = cluster;
  one.nodes.clear();
  for (const Node& node : cluster.nodes) {
    if (!one.nodes.empty() || node.devices.empty()) continue;
    if (cluster.devices[static_cast<std::size_t>(node.devices.front().value)].type == static_cast<int>(type))
      one.nodes = {node};
  }
  return one;
}

// "4-way A100'" is of A100.
std::string name_of_one(const DeviceType& device) {
  std::string name = device.name;
  const std::string prefix = fmt::format("{}-way ", device.group);
  if (device.group > 1 && name.starts_with(prefix)) name.erase(0, prefix.size());
  return name;
}

}  // namespace

FrameworkCostModel::FrameworkCostModel(const Network& network, const Cluster& cluster, const std::string& framework,
                                       bool sequence_parallel)
    : transformer_(*network.transformer), sequence_parallel_(sequence_parallel) {
  for (std::size_t type = 0; type < cluster.device_types.size(); ++type) {
    const Cluster node = node_with(cluster, type);
    if (!node.nodes.empty()) machines_.emplace(cluster.device_types[type].name, machine_of(node, framework));
  }
}

Machine FrameworkCostModel::machine_of_one(const DeviceType& device) const {
  std::string name = name_of_one(device);
  auto known = machines_.find(name);
  while (known == machines_.end() && name.ends_with('\'')) {
    name.pop_back();
    known = machines_.find(name);
  }
  if (known == machines_.end()) throw bad_input("device type '{}' is not one of the cluster's", printable(device.name));
  Machine machine = known->second;
  const double group = device.group;
  machine.device = device;
  for (FlopsPerSecond& peak : machine.device.peak) peak /= group;
  machine.device.memory_bandwidth /= group;
  machine.device.memory /= group;
  machine.device.group = 1;
  if (device.group > 1) {
    machine.levels = {node_level(machine.constants, group, device.group_link.bandwidth.value())};
  }
  return machine;
}

LayerCost FrameworkCostModel::layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const {
  const Machine machine = machine_of_one(device);
  const TrainingJob job{transformer_,       workload.microbatch, workload.sequence,
                        workload.precision, workload.optimizer,  workload.fused_attention};
  if (!(device.peak_of(workload.precision) > FlopsPerSecond(0))) {
    throw bad_input("device type '{}' does not compute in {}; it does in {}", device.name, name(workload.precision),
                    join(precisions_of(device)));
  }
  ParallelLayout layout;
  layout.tensor = device.group;
  layout.pipeline = 2;  // that leaves the node, as those on unlike nodes do
  layout.microbatch = static_cast<std::int32_t>(workload.microbatch);
  layout.sequence_parallel = device.group > 1 && sequence_parallel_;
  const Shard shards = shard_costs(job, machine, layout);
  const bool is_block = layer.kind != "embedding" && layer.kind != "head";
  const LayerShard& shard = is_block ? shards.block : layer.kind == "head" ? shards.head : shards.embedding;
  const auto mode = static_cast<std::size_t>(is_block ? workload.recompute : Recompute::none);
  const ParameterBytes each = parameter_bytes(workload.precision, workload.optimizer);
  const FrameworkConstants& framework = machine.framework;
  const double group = device.group;
  const double parameters = shard.parameters + shard.expert_parameters;  // of a device

  LayerCost cost;
  cost.forward = Seconds(shard.forward + shard.tensor_forward);
  cost.backward_input = Seconds(shard.backward_input + shard.tensor_backward);
  cost.backward_weight = Seconds(shard.backward_weight);
  cost.recompute = Seconds(shard.recompute[mode] + shard.tensor_recompute[mode]);
  cost.optimizer = Seconds(framework.optimizer * parameters * each.touched.value() /
                           (machine.device.memory_bandwidth.value() * machine.constants.memory));
  cost.weights = each.weight * (parameters * group);
  cost.gradients = Bytes(framework.gradient_bytes * parameters * group);
  cost.optimizer_state = each.optimizer_state * (parameters * group);
  cost.reduced = Bytes(framework.reduced_bytes * parameters * group);
  cost.stash = Bytes(shard.stash[mode] * group * (1 + framework.fragmentation));
  cost.workspace = Bytes((shard.stash[0] - shard.stash[mode] + shard.workspace) * group);
  return cost;
}

Overheads FrameworkCostModel::overheads(const DeviceType& device) const {
  const FrameworkConstants& framework = machine_of_one(device).framework;
  Overheads overheads;
  overheads.action = Seconds(framework.microbatch_s / 2);  // a forward and a backward
  overheads.step = Seconds(framework.step_s);
  // A pipeline, replicas and, in groups, tensor parallelism.
  const int communicators = device.group > 1 ? 3 : 2;
  overheads.reserved = Bytes(framework.reserved_bytes + communicators * framework.communicator_bytes) * device.group;
  return overheads;
}

}  // namespace stagecraft
