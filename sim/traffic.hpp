// Everything that one step of a plan sends, and the ports that it goes through.
//
// A port is one direction of a device's local link, of a NIC or of a leaf's uplink. A flow takes bandwidth from each
// port of its path and shares it fairly with the flows that are there at the same time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "models/plan.hpp"
#include "sim/collective.hpp"

namespace stagecraft {

using PortId = Index<struct PortTag>;

// Which way a flow takes: the node's local links; NICs below one leaf; NICs and the uplinks of two leaves.
enum class Plane : std::uint8_t { local, leaf, spine };

struct Route {
  Plane plane = Plane::local;
  int hops = 0;                 // 0: the device itself
  std::array<PortId, 4> ports;  // out of the source (`hops / 2` of them), then into the target
  std::span<const PortId> out() const { return {ports.data(), static_cast<std::size_t>(hops) / 2}; }
  std::span<const PortId> in() const { return {ports.data() + hops / 2, static_cast<std::size_t>(hops) / 2}; }
  std::span<const PortId> all() const { return {ports.data(), static_cast<std::size_t>(hops)}; }
};

// The ports of a cluster, numbered.
class Ports {
 public:
  explicit Ports(const Cluster& cluster);
  std::size_t size() const { return bandwidths_.size(); }
  BytesPerSecond bandwidth(PortId port) const { return bandwidths_[static_cast<std::size_t>(port.value)]; }
  // Local, NIC or uplink, outward or inward: 0 to 5. The ports of a route are of different kinds.
  int kind(PortId port) const;
  Route route(DeviceId from, DeviceId to) const;

 private:
  PortId local(DeviceId device, int direction) const;
  PortId nic(DeviceId device, int direction) const;
  PortId uplink(DeviceId device, int direction) const;

  const Cluster* cluster_;
  std::vector<int> first_nic_;  // by node
  int nics_ = 0;
  std::vector<BytesPerSecond> bandwidths_;
};

// A message, or one hop of a ring: `steps` messages of together `bytes`.
struct Flow {
  DeviceId from, to;
  int steps = 1;
  Bytes bytes;
};

// The ways that micro-batches take through the ranks: one, or two in bidirectional schedules.
struct Ways {
  std::vector<std::vector<RankId>> ways;  // rank by stage
  std::vector<int> of_microbatch;         // empty with one way
  int of(MicrobatchId microbatch) const {
    return of_microbatch.empty() ? 0 : of_microbatch[static_cast<std::size_t>(microbatch.value)];
  }
};
Ways ways_of(const ComputeSchedule& schedule);

// The devices that sum a stage's gradients with each other, [tensor-parallel shard][member]: those that hold the same
// slice of its layers, by row of Plan::devices, then rank.
std::vector<std::vector<DeviceId>> reduction_groups(const Plan& plan, const PlanStage& stage);
// How those groups of every stage do it: a stage's are alike, with as many phases. Stages on the same ranks with as
// many bytes do the same, which is planned once.
struct Reductions {
  std::vector<std::vector<AllReduce>> distinct;  // [..][group]
  std::vector<std::size_t> of_stage;             // into `distinct`
  const std::vector<AllReduce>& of(std::size_t stage) const { return distinct[of_stage[stage]]; }
};
Reductions reductions_of(const Plan& plan);

// Flows by row of Plan::devices (a shard of a replica) and by slot: what a slot carries is the same in every row, only
// the devices differ.
struct Traffic {
  std::vector<std::vector<Flow>> replicas;  // [row][slot]
  Ways ways;
  int stages = 0;
  bool tied = false;
  std::size_t first_tied_slot = 0;
  std::vector<int> first_grad_slot;  // by stage, and one past the last: a slot a phase and sharer of the replica
  std::vector<int> sharers;          // by stage: ranks of a replica that have it

  // REQUIRES: stage < stages - 1.
  std::size_t forward_slot(int way, int stage) const { return message_slots(way) + static_cast<std::size_t>(stage); }
  std::size_t backward_slot(int way, int to_stage) const {
    return message_slots(way) + static_cast<std::size_t>(stages - 1 + to_stage);
  }
  // The two directions of REDUCE_TIED.
  std::size_t tied_slot(bool from_last) const { return first_tied_slot + (from_last ? 1 : 0); }
  int grad_phases(int stage) const {
    const auto at = static_cast<std::size_t>(stage);
    return (first_grad_slot[at + 1] - first_grad_slot[at]) / sharers[at];
  }
  std::size_t grad_slot(int stage, int phase, int sharer) const {
    const auto at = static_cast<std::size_t>(stage);
    const int slot = first_grad_slot[at] + phase * sharers[at] + sharer;
    return static_cast<std::size_t>(slot);
  }

 private:
  std::size_t message_slots(int way) const {
    return 2 * static_cast<std::size_t>(stages - 1) * static_cast<std::size_t>(way);
  }
};
Traffic traffic_of(const Plan& plan);

}  // namespace stagecraft
