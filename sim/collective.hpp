// An all-reduce as messages: what the simulators execute where a schedule says REDUCE.
//
// Two algorithms, as all_reduce_time() prices them: one flat ring over all devices, or, where the devices fill several
// nodes with equal numbers above one, rings inside the nodes around rings between them. The cheaper one is taken.
#pragma once

#include <span>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/units.hpp"

namespace stagecraft {

// What one device sends to its neighbour in a phase: `steps` messages of together `bytes`, one after the other.
struct RingHop {
  DeviceId from, to;
  int steps = 0;
  Bytes bytes;  // as many as take the time of the messages and of the additions (Node::reduction)
};

// One phase begins when the one before has ended everywhere. The hops of a phase are in the order of `devices`, each
// sending once, so that hops[i].from is devices[i].
struct CollectivePhase {
  std::vector<RingHop> hops;
};

struct AllReduce {
  std::vector<CollectivePhase> phases;
  Seconds time;  // when nothing else uses the links
};

enum class ReduceForm { fastest, flat };

// REQUIRES: at least one device, all different and existing. One device: no phases, no time.
AllReduce plan_all_reduce(const Cluster& cluster, std::span<const DeviceId> devices, Bytes bytes,
                          ReduceForm form = ReduceForm::fastest);

}  // namespace stagecraft
