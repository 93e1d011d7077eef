#include "sim/collective.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "models/cost/communication.hpp"

namespace stagecraft {
namespace {

using Ring = std::vector<DeviceId>;

// 2 (n-1) steps around a ring are an all-reduce, n-1 a reduce-scatter or an all-gather: each of bytes / n. What
// additions cost beside a message counts as more bytes of it.
std::map<DeviceId, RingHop> hops_of(const Cluster& cluster, const std::vector<Ring>& rings, int passes, Bytes bytes) {
  std::map<DeviceId, RingHop> hops;
  for (const Ring& ring : rings) {
    const auto n = static_cast<int>(ring.size());
    const int steps = passes * (n - 1);
    for (std::size_t i = 0; i < ring.size(); ++i) {
      const DeviceId to = ring[(i + 1) % ring.size()];
      const double more = cluster.path(ring[i], to).bandwidth / cluster.reduction_path(ring[i], to).bandwidth;
      hops[ring[i]] = {ring[i], to, steps, bytes / n * steps * more};
    }
  }
  return hops;
}

CollectivePhase phase_of(const Cluster& cluster, std::span<const DeviceId> devices, const std::vector<Ring>& rings,
                         int passes, Bytes bytes) {
  const auto hops = hops_of(cluster, rings, passes, bytes);
  CollectivePhase phase;
  for (const DeviceId device : devices) phase.hops.push_back(hops.at(device));
  return phase;
}

// A step of the chunked ring waits for the neighbour's step before it, so its slowest hop sets the pace of all: the
// time is the largest of the hops' own times.
Seconds ring_time(const Cluster& cluster, const CollectivePhase& phase) {
  Seconds time;
  for (const RingHop& hop : phase.hops) {
    const Link link = cluster.path(hop.from, hop.to);
    time = std::max(time, hop.steps * link.latency + hop.bytes / link.bandwidth);
  }
  return time;
}

}  // namespace

AllReduce plan_all_reduce(const Cluster& cluster, std::span<const DeviceId> devices, Bytes bytes, ReduceForm form) {
  AllReduce plan;
  if (devices.size() < 2) return plan;
  Ring ring(devices.begin(), devices.end());
  std::sort(ring.begin(), ring.end());  // devices are numbered node after node
  plan.phases.push_back(phase_of(cluster, devices, {ring}, 2, bytes));
  plan.time = ring_time(cluster, plan.phases.front());
  if (form == ReduceForm::flat) return plan;

  const Seconds best = all_reduce_time(cluster, devices, bytes);
  if (best < plan.time * (1 - 1e-9)) {  // the hierarchical form: rings that all_reduce_time() has
    std::map<int, Ring> nodes;
    for (const DeviceId device : ring)
      nodes[cluster.devices[static_cast<std::size_t>(device.value)].node].push_back(device);
    std::vector<Ring> inside, between(nodes.begin()->second.size());
    for (const auto& [node, members] : nodes) {
      inside.push_back(members);
      for (std::size_t i = 0; i < members.size(); ++i) between[i].push_back(members[i]);
    }
    const auto per_node = static_cast<double>(between.size());
    plan.phases = {phase_of(cluster, devices, inside, 1, bytes),
                   phase_of(cluster, devices, between, 2, bytes / per_node),
                   phase_of(cluster, devices, inside, 1, bytes)};
    plan.time = best;
  }
  return plan;
}

}  // namespace stagecraft
