#include "sim/traffic.hpp"

namespace stagecraft {

Ports::Ports(const Cluster& cluster) : cluster_(&cluster) {
  for (const Device& device : cluster.devices) {
    bandwidths_.insert(bandwidths_.end(), 2, cluster.nodes[static_cast<std::size_t>(device.node)].local.bandwidth);
  }
  for (const Node& node : cluster.nodes) {
    first_nic_.push_back(nics_);
    nics_ += node.nics;
    bandwidths_.insert(bandwidths_.end(), 2 * static_cast<std::size_t>(node.nics), node.network.bandwidth);
  }
  if (cluster.uplink) {
    bandwidths_.insert(bandwidths_.end(), 2 * static_cast<std::size_t>(cluster.leaves), cluster.uplink->bandwidth);
  }
}

PortId Ports::local(DeviceId device, int direction) const { return {2 * device.value + direction}; }

PortId Ports::nic(DeviceId device, int direction) const {
  const int devices = static_cast<int>(cluster_->devices.size());
  const int node = cluster_->devices[static_cast<std::size_t>(device.value)].node;
  const int nic = first_nic_[static_cast<std::size_t>(node)] + cluster_->nic_of(device);
  return {2 * (devices + nic) + direction};
}

PortId Ports::uplink(DeviceId device, int direction) const {
  const int devices = static_cast<int>(cluster_->devices.size());
  return {2 * (devices + nics_ + cluster_->node_of(device).leaf) + direction};
}

int Ports::kind(PortId port) const {
  const int pair = port.value / 2, devices = static_cast<int>(cluster_->devices.size());
  const int owner = pair < devices ? 0 : pair < devices + nics_ ? 1 : 2;
  return 2 * owner + port.value % 2;
}

Route Ports::route(DeviceId from, DeviceId to) const {
  constexpr int out = 0, in = 1;
  if (from == to) return {};
  const Node& source = cluster_->node_of(from);
  const Node& target = cluster_->node_of(to);
  if (&source == &target) return {Plane::local, 2, {local(from, out), local(to, in)}};
  if (!cluster_->uplink || source.leaf == target.leaf) return {Plane::leaf, 2, {nic(from, out), nic(to, in)}};
  return {Plane::spine, 4, {nic(from, out), uplink(from, out), uplink(to, in), nic(to, in)}};
}

namespace {

DeviceId device_of(const Plan& plan, std::size_t replica, int stage) {
  const RankId rank = plan.stages[static_cast<std::size_t>(stage)].rank;
  return plan.devices[replica][static_cast<std::size_t>(rank.value)];
}

Bytes boundary(const Plan& plan, int stage) { return plan.stages[static_cast<std::size_t>(stage)].cost.boundary; }

void add_messages(const Plan& plan, std::size_t replica, std::vector<Flow>& flows) {
  const int last = static_cast<int>(plan.stages.size()) - 1;
  for (int s = 0; s < last; ++s) {
    flows.push_back({device_of(plan, replica, s), device_of(plan, replica, s + 1), 1, boundary(plan, s)});
  }
  for (int s = 0; s < last; ++s) {
    flows.push_back({device_of(plan, replica, s + 1), device_of(plan, replica, s), 1, boundary(plan, s)});
  }
}

void add_tied(const Plan& plan, std::size_t replica, std::vector<Flow>& flows) {
  const std::vector<DeviceId> ends{device_of(plan, replica, 0),
                                   device_of(plan, replica, static_cast<int>(plan.stages.size()) - 1)};
  // Two devices have one way to do it: a ring in one phase.
  const AllReduce sum = plan_all_reduce(plan.cluster, ends, plan.stages.front().cost.tied);
  for (const RingHop& hop : sum.phases.front().hops) flows.push_back({hop.from, hop.to, hop.steps, hop.bytes});
}

}  // namespace

Traffic traffic_of(const Plan& plan) {
  Traffic traffic;
  traffic.stages = static_cast<int>(plan.stages.size());
  traffic.tied = plan.tied_ends() && plan.stages.front().rank != plan.stages.back().rank;
  traffic.replicas.resize(plan.devices.size());
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    add_messages(plan, d, traffic.replicas[d]);
    if (traffic.tied) add_tied(plan, d, traffic.replicas[d]);
  }
  for (int s = 0; s < traffic.stages; ++s) {
    traffic.first_grad_slot.push_back(static_cast<int>(traffic.replicas.front().size()));
    std::vector<DeviceId> devices;
    for (std::size_t d = 0; d < plan.devices.size(); ++d) devices.push_back(device_of(plan, d, s));
    const Bytes gradients = plan.stages[static_cast<std::size_t>(s)].cost.gradients;
    for (const CollectivePhase& phase : plan_all_reduce(plan.cluster, devices, gradients).phases) {
      for (std::size_t d = 0; d < plan.devices.size(); ++d) {
        const RingHop& hop = phase.hops[d];
        traffic.replicas[d].push_back({hop.from, hop.to, hop.steps, hop.bytes});
      }
    }
  }
  traffic.first_grad_slot.push_back(static_cast<int>(traffic.replicas.front().size()));
  return traffic;
}

}  // namespace stagecraft
