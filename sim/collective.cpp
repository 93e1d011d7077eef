#include "sim/collective.hpp"

#include <algorithm>
#include <numeric>

#include "models/cost/communication.hpp"

namespace stagecraft {
namespace {

using Ring = std::vector<std::size_t>;  // positions in the devices of the reduction

// 2 (n-1) steps around a ring are an all-reduce, n-1 a reduce-scatter or an all-gather: each of bytes / n. What
// additions cost beside a message counts as more bytes of it.
CollectivePhase phase_of(const Cluster& cluster, std::span<const DeviceId> devices, const std::vector<Ring>& rings,
                         int passes, Bytes bytes) {
  CollectivePhase phase;
  phase.hops.resize(devices.size());
  for (const Ring& ring : rings) {
    const auto n = static_cast<int>(ring.size());
    const int steps = passes * (n - 1);
    for (std::size_t i = 0; i < ring.size(); ++i) {
      const DeviceId from = devices[ring[i]], to = devices[ring[(i + 1) % ring.size()]];
      const double more = cluster.path(from, to).bandwidth / cluster.reduction_path(from, to).bandwidth;
      phase.hops[ring[i]] = {from, to, steps, bytes / n * steps * more};
    }
  }
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
  Ring ring(devices.size());
  std::iota(ring.begin(), ring.end(), std::size_t{0});
  // Devices are numbered node after node.
  std::sort(ring.begin(), ring.end(), [&](std::size_t a, std::size_t b) { return devices[a] < devices[b]; });
  plan.phases.push_back(phase_of(cluster, devices, {ring}, 2, bytes));
  plan.time = ring_time(cluster, plan.phases.front());
  if (form == ReduceForm::flat) return plan;

  const Seconds best = all_reduce_time(cluster, devices, bytes);
  if (best < plan.time * (1 - 1e-9)) {  // the hierarchical form: rings that all_reduce_time() has
    std::vector<Ring> inside;
    for (std::size_t i = 0; i < ring.size(); ++i) {
      const auto node = [&](std::size_t at) { return &cluster.node_of(devices[ring[at]]); };
      if (i == 0 || node(i) != node(i - 1)) inside.emplace_back();
      inside.back().push_back(ring[i]);
    }
    std::vector<Ring> between(inside.front().size());
    for (const Ring& members : inside) {
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
