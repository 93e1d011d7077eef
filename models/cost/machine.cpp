#include "models/cost/machine.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace stagecraft {
namespace {

bool leaves_node(const GroupShape& group) { return group.members > group.per_node; }

// The innermost level that holds as many devices side by side.
std::size_t level_of(const Machine& machine, double reach) {
  std::size_t i = 0;
  while (i + 1 < machine.levels.size() && reach > machine.levels[i].devices) ++i;
  return i;
}

// The outermost level that the group's ring passes. Whoever leaves the node is on the next one, if there is one.
std::size_t outermost_level(const Machine& machine, const GroupShape& group) {
  if (!leaves_node(group)) return 0;
  return std::max(level_of(machine, group.stride * group.members), std::min<std::size_t>(1, machine.levels.size() - 1));
}

const NetworkLevel& slowest_level(const Machine& machine, const GroupShape& group) {
  return machine.levels[outermost_level(machine, group)];
}

// How many of a group share the ports that lead from the level below to level `i`. REQUIRES: i > 0.
double members_below(const Machine& machine, std::size_t i, const GroupShape& group) {
  if (i == 1) return group.per_node;
  return std::clamp(std::floor(machine.levels[i - 1].devices / group.stride), 1.0, group.members);
}

// What a ring through the group moves past each device a second. A group's devices on a node share their ports' rates:
// the ring leaves the node once for all of them. So it is with those below one switch.
double ring_bandwidth(const Machine& machine, const GroupShape& group) {
  double bandwidth = machine.levels.front().bandwidth;
  const double reach = group.stride * group.members;
  for (std::size_t i = 1; i < machine.levels.size() && reach > machine.levels[i - 1].devices; ++i) {
    const double spread = reach / machine.levels[i - 1].devices;
    const double left = std::pow(spread, -machine.levels[i].narrowing);
    bandwidth = std::min(bandwidth, members_below(machine, i, group) * machine.levels[i].bandwidth * left);
  }
  return bandwidth;
}

double start_of(const Machine& machine, const GroupShape& group) {
  const double start = slowest_level(machine, group).start;
  return leaves_node(group) ? start : machine.framework.collective_start * start;
}

// A message of `transfer` seconds over `latency` seconds of steps, in pieces of the best size.
double pipelined(double latency, double transfer) {
  const double root = std::sqrt(latency) + std::sqrt(transfer);
  return root * root;
}

}  // namespace

NetworkLevel node_level(const DeviceConstants& constants, double devices, double bandwidth) {
  return {devices, bandwidth, constants.local_latency_s, 0, constants.local_start_s};
}

NetworkLevel network_level(const FabricConstants& constants, double devices, double rate) {
  return {devices,
          rate,
          constants.latency_s,
          constants.tree_latency_s,
          constants.start_s,
          constants.tree_nodes,
          constants.wide_latency_s,
          constants.narrowing};
}

GroupShape group_of(const Machine& machine, double stride, double members) {
  const double fit = std::max(1.0, std::floor(machine.levels.front().devices / stride));
  return {members, std::min(members, fit), stride};
}

GroupShape group_of(const Machine& machine, const Spread& inner, const Spread& outer) {
  if (inner.members == 1) return group_of(machine, outer.stride, outer.members);
  if (outer.members == 1) return group_of(machine, inner.stride, inner.members);
  const double members = inner.members * outer.members;
  // As long as the outer steps make it, with as many members.
  const double stride = outer.stride / inner.members;
  const double together = std::max(1.0, std::floor(machine.levels.front().devices / outer.stride));
  if (together > 1) return {members, inner.members * std::min(outer.members, together), stride};
  return {members, group_of(machine, inner.stride, inner.members).per_node, stride};
}

double reduce_scatter_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members <= 1 || bytes <= 0) return 0;
  const NetworkLevel& level = slowest_level(machine, group);
  const double transfer = (group.members - 1) / group.members * bytes / ring_bandwidth(machine, group);
  const double latency = (group.members - 1) * level.latency;
  return start_of(machine, group) + (leaves_node(group) ? latency + transfer : pipelined(latency, transfer));
}

double all_gather_time(const Machine& machine, const GroupShape& group, double bytes) {
  return reduce_scatter_time(machine, group, bytes);
}

double all_reduce_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members <= 1 || bytes <= 0) return 0;
  const NetworkLevel& level = slowest_level(machine, group);
  const double ring = ring_bandwidth(machine, group);
  const double transfer = 2 * (group.members - 1) / group.members * bytes / ring;
  const double latency = 2 * (group.members - 1) * level.latency;
  const double start = start_of(machine, group);
  if (!leaves_node(group)) return start + pipelined(latency, transfer);
  // A tree over the nodes: every byte leaves and enters a node once each, whatever the devices on it.
  const double nodes = group.members / group.per_node;
  const NetworkLevel& local = machine.levels.front();
  if (nodes > level.tree_nodes) return start + 2 * (group.members - 1) * level.wide_latency + transfer;
  const double inside = 2 * (group.per_node - 1) / group.per_node * bytes / local.bandwidth;
  const double between = 2 * (nodes - 1) / nodes * bytes / ring;
  const double steps = 2 * (group.per_node - 1) * local.latency + 2 * std::ceil(std::log2(nodes)) * level.tree_latency;
  return start + std::min(latency + transfer, pipelined(steps, std::max(inside, between)));
}

double all_to_all_time(const Machine& machine, const GroupShape& group, double bytes) {
  if (group.members <= 1 || bytes <= 0) return 0;
  const double n = group.members;
  double time = (group.per_node - 1) / n * bytes / machine.levels.front().bandwidth;
  for (std::size_t i = 1; i <= outermost_level(machine, group); ++i) {
    time = std::max(time, (n - members_below(machine, i, group)) / n * bytes / machine.levels[i].bandwidth);
  }
  return start_of(machine, group) + time;
}

double message_time(const Machine& machine, double stride, double reach, double bytes) {
  const bool leaves_node = stride >= machine.levels.front().devices && machine.levels.size() > 1;
  const NetworkLevel& level = machine.levels[leaves_node ? 1 : 0];
  double latency = level.latency, bandwidth = level.bandwidth;
  if (const std::size_t i = level_of(machine, reach); i > 1) {
    // All devices of a link of the chain send at once, and nobody else.
    const double below = machine.levels[i - 1].devices;
    latency = machine.levels[i].latency;
    bandwidth = std::min(bandwidth, machine.levels[i].bandwidth * below / std::min(stride, below));
  }
  return latency + bytes / bandwidth;
}

double matmul_time(const Machine& machine, double peak, double m, double n, double k, double element) {
  assert(m > 0 && n > 0 && k > 0);
  const DeviceConstants& constants = machine.constants;
  const double tile = constants.matmul_tile;
  const double waves = std::ceil(m / tile) * std::ceil(n / tile) / constants.multiprocessors;
  const double taken = constants.matmul_waves * std::ceil(waves) + (1 - constants.matmul_waves) * waves;
  const double flops = 2 * taken * constants.multiprocessors * tile * tile * (k + constants.matmul_depth);
  const double bytes = (m * n + n * k + m * k) * element;
  return std::max({flops / (peak * constants.matmul),
                   bytes / (machine.device.memory_bandwidth.value() * constants.memory), constants.kernel_s});
}

}  // namespace stagecraft
