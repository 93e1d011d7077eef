#include "models/cost/communication.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <map>
#include <vector>

namespace stagecraft {
namespace {

int ceil_log2(int n) { return static_cast<int>(std::bit_width(static_cast<unsigned>(n) - 1)); }

// The steps of a ring are in lockstep: each takes the worst latency and the least bandwidth among its neighbours.
Link slowest_hop(const Cluster& cluster, std::span<const DeviceId> ring) {
  Link slowest = cluster.reduction_path(ring.back(), ring.front());
  for (std::size_t i = 0; i + 1 < ring.size(); ++i) {
    const Link hop = cluster.reduction_path(ring[i], ring[i + 1]);
    slowest.latency = std::max(slowest.latency, hop.latency);
    slowest.bandwidth = std::min(slowest.bandwidth, hop.bandwidth);
  }
  return slowest;
}

using Groups = std::map<int, std::vector<DeviceId>>;  // participants by node

// What one device has between nodes while all devices of each node run a ring each: its share of its NIC and, where the
// rings leave a leaf, of the uplink. (A ring crosses each leaf's uplink once in each direction.)
Link network_share(const Cluster& cluster, const Groups& groups) {
  Link share{Seconds(0), BytesPerSecond(std::numeric_limits<double>::infinity())};
  std::vector<DeviceId> ring;
  bool several_leaves = false;
  for (const auto& [index, members] : groups) {
    const Node& node = cluster.nodes[static_cast<std::size_t>(index)];
    std::map<int, int> users;
    int most = 0;
    for (const DeviceId member : members) most = std::max(most, ++users[cluster.nic_of(member)]);
    share.bandwidth = std::min(share.bandwidth, node.network.bandwidth / most);
    several_leaves = several_leaves || node.leaf != cluster.node_of(groups.begin()->second.front()).leaf;
    ring.push_back(members.front());
  }
  if (cluster.uplink && several_leaves) {
    const auto rings = static_cast<double>(groups.begin()->second.size());
    share.bandwidth = std::min(share.bandwidth, cluster.uplink->bandwidth / rings);
  }
  share.latency = slowest_hop(cluster, ring).latency;
  return share;
}

}  // namespace

Seconds point_to_point_time(const Link& link, Bytes bytes) { return link.transfer_time(bytes); }

Seconds naive_all_reduce_time(int n, Bytes parameters, BytesPerSecond bandwidth) {
  assert(n > 0);
  return n * parameters / bandwidth;
}

Seconds ring_reduce_scatter_time(const Link& link, int n, Bytes bytes) {
  assert(n > 0);
  return (n - 1) * link.transfer_time(bytes / n);
}

Seconds ring_all_gather_time(const Link& link, int n, Bytes bytes) { return ring_reduce_scatter_time(link, n, bytes); }

Seconds ring_all_reduce_time(const Link& link, int n, Bytes bytes) {
  return ring_reduce_scatter_time(link, n, bytes) + ring_all_gather_time(link, n, bytes);
}

Seconds tree_all_reduce_time(const Link& link, int n, Bytes bytes) {
  assert(n > 0);
  return 2 * ceil_log2(n) * link.transfer_time(bytes);
}

Seconds double_tree_all_reduce_time(const Link& link, int n, Bytes bytes) {
  assert(n > 0);
  if (n == 1) return Seconds(0);
  return 2 * ceil_log2(n) * link.latency + 2 * bytes / link.bandwidth;
}

Seconds halving_doubling_all_reduce_time(const Link& link, int n, Bytes bytes) {
  assert(n > 0);
  const auto power = static_cast<int>(std::bit_floor(static_cast<unsigned>(n)));
  const Seconds fold = power == n ? Seconds(0) : 2 * link.transfer_time(bytes);
  return fold + 2 * ceil_log2(power) * link.latency + 2 * (power - 1) * (bytes / power) / link.bandwidth;
}

Seconds hierarchical_all_reduce_time(const Link& local, int per_node, const Link& network, int nodes, Bytes bytes) {
  return ring_reduce_scatter_time(local, per_node, bytes) + ring_all_reduce_time(network, nodes, bytes / per_node) +
         ring_all_gather_time(local, per_node, bytes);
}

Seconds all_to_all_time(const Link& link, int n, Bytes bytes) {
  assert(n > 0);
  return (n - 1) * link.transfer_time(bytes / n);
}

Seconds parameter_server_time(const Link& link, int n, int servers, Bytes bytes) {
  assert(n > 0 && servers > 0);
  const double busiest = std::max(1.0, static_cast<double>(n) / servers);
  return 2 * link.transfer_time(bytes * busiest);
}

Seconds gossip_time(const Link& link, int neighbours, Bytes bytes) {
  assert(neighbours >= 0);
  return neighbours == 0 ? Seconds(0) : link.transfer_time(neighbours * bytes);
}

Seconds all_reduce_time(const Cluster& cluster, std::span<const DeviceId> devices, Bytes bytes) {
  assert(!devices.empty());
  if (devices.size() == 1) return Seconds(0);
  std::vector<DeviceId> ring(devices.begin(), devices.end());
  std::sort(ring.begin(), ring.end());  // devices are numbered node after node
  assert(std::adjacent_find(ring.begin(), ring.end()) == ring.end());
  const Seconds flat = ring_all_reduce_time(slowest_hop(cluster, ring), static_cast<int>(ring.size()), bytes);

  Groups groups;
  for (const DeviceId device : ring)
    groups[cluster.devices[static_cast<std::size_t>(device.value)].node].push_back(device);
  const std::size_t per_node = groups.begin()->second.size();
  const bool equal =
      std::all_of(groups.begin(), groups.end(), [&](const auto& group) { return group.second.size() == per_node; });
  if (groups.size() == 1 || per_node == 1 || !equal) return flat;

  Link local = slowest_hop(cluster, groups.begin()->second);
  for (const auto& [node, members] : groups) {
    const Link hop = slowest_hop(cluster, members);
    local = {std::max(local.latency, hop.latency), std::min(local.bandwidth, hop.bandwidth)};
  }
  return std::min(flat, hierarchical_all_reduce_time(local, static_cast<int>(per_node), network_share(cluster, groups),
                                                     static_cast<int>(groups.size()), bytes));
}

}  // namespace stagecraft
