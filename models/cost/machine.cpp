#include "models/cost/machine.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

namespace stagecraft {
namespace {

// Steps of latency on the way of a ring's first piece: inside the nodes, and between them.
double ring_latency(const Machine& machine, const GroupShape& group) {
  const double nodes = static_cast<double>(group.members / group.per_node);
  return static_cast<double>(group.per_node - 1) * machine.levels.front().latency.value() +
         (nodes - 1) * machine.levels.back().latency.value();
}

// NCCL's tree: down and up a binary tree of the nodes, a chain inside each.
double tree_latency(const Machine& machine, const GroupShape& group) {
  const auto nodes = static_cast<std::uint64_t>(group.members / group.per_node);
  return 2 * (static_cast<double>(group.per_node - 1) * machine.levels.front().latency.value() +
              std::bit_width(nodes - 1) * machine.levels.back().latency.value());
}

double start(const Machine& machine, const GroupShape& group) {
  return (group.members > group.per_node ? machine.levels.back() : machine.levels.front()).collective.value();
}

// What a ring through the group moves past each device a second.
double bus_bandwidth(const Machine& machine, const GroupShape& group) {
  double bandwidth = machine.levels.front().bandwidth.value();
  const std::int64_t reach = group.stride * group.members;
  for (std::size_t i = 1; i < machine.levels.size() && reach > machine.levels[i - 1].devices; ++i) {
    const NetworkLevel& level = machine.levels[i];
    bandwidth =
        std::min({bandwidth, static_cast<double>(group.per_node) * level.bandwidth.value(), level.group.value()});
  }
  return bandwidth;
}

// The share of a wave of tiles that has work, on average over the waves.
double filled(const DeviceConstants& constants, double m, double n) {
  const double tiles = std::ceil(m / constants.matmul_tile) * std::ceil(n / constants.matmul_tile);
  const double waves = tiles / constants.multiprocessors;
  return waves / std::ceil(waves) * (m * n) / (tiles * constants.matmul_tile * constants.matmul_tile);
}

}  // namespace

GroupShape group_of(const Machine& machine, std::int64_t inner, std::int64_t members) {
  const std::int64_t fit = std::max<std::int64_t>(1, machine.levels.front().devices / inner);
  return {members, std::min(members, fit), inner};
}

double reduce_scatter_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members == 1) return 0;
  const auto n = static_cast<double>(group.members);
  return start(machine, group) + ring_latency(machine, group) + (n - 1) / n * bytes / bus_bandwidth(machine, group);
}

double all_gather_time(const Machine& machine, const GroupShape& group, double bytes) {
  return reduce_scatter_time(machine, group, bytes);
}

double all_reduce_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members == 1) return 0;
  const auto n = static_cast<double>(group.members);
  const double latency = std::min(2 * ring_latency(machine, group), tree_latency(machine, group));
  return start(machine, group) + latency + 2 * (n - 1) / n * bytes / bus_bandwidth(machine, group);
}

double all_to_all_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members == 1) return 0;
  const auto n = static_cast<double>(group.members);
  const auto near = static_cast<double>(group.per_node);
  double time = (near - 1) / n * bytes / machine.levels.front().bandwidth.value();
  if (group.members > group.per_node) {
    time = std::max(time, (n - near) / n * bytes / machine.levels.back().bandwidth.value());
  }
  return start(machine, group) + time;
}

double message_time(const Machine& machine, std::int64_t inner, double bytes) {
  const NetworkLevel& level = inner >= machine.levels.front().devices ? machine.levels.back() : machine.levels.front();
  return level.latency.value() + bytes / level.bandwidth.value();
}

double matmul_time(const Machine& machine, double peak, double m, double n, double k, double element) {
  assert(m > 0 && n > 0 && k > 0);
  const DeviceConstants& constants = machine.constants;
  const double rate = peak * constants.matmul * k / (k + constants.matmul_depth) * filled(constants, m, n);
  const double bytes = (m * n + n * k + m * k) * element;
  return std::max({2 * m * n * k / rate, bytes / (machine.device.memory_bandwidth.value() * constants.memory),
                   constants.kernel.value()});
}

DeviceConstants constants_of(const DeviceType& device) {
  DeviceConstants constants;
  constants.device = device.name;
  constants.matmul = device.efficiency.matmul;
  constants.attention_forward = device.efficiency.attention;
  constants.attention_backward = device.efficiency.attention;
  constants.memory = device.efficiency.memory;
  return constants;
}

FrameworkConstants load_framework(const std::string& name) {
  FrameworkConstants constants;
  constants.framework = name;
  return constants;
}

Machine machine_of(const Cluster& cluster, const std::string& framework) {
  const Node& node = cluster.nodes.front();
  const DeviceType& device = cluster.type_of(node.devices.front());
  Machine machine{device, constants_of(device), load_framework(framework), {}};
  const auto in_node = static_cast<std::int64_t>(node.devices.size());
  machine.levels.push_back({in_node, node.local.bandwidth, node.local.bandwidth, node.local.latency, Seconds(1e-5)});
  if (cluster.nodes.size() > 1) {
    const BytesPerSecond ports = node.network.bandwidth * static_cast<double>(node.nics);
    machine.levels.push_back({static_cast<std::int64_t>(cluster.devices.size()), ports / static_cast<double>(in_node),
                              ports, 2 * node.network.latency, Seconds(2e-5)});
  }
  return machine;
}

}  // namespace stagecraft
