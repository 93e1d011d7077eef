#include "sim/traffic.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

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

Ways ways_of(const ComputeSchedule& schedule) {
  const Placement placement(schedule);
  Ways ways;
  std::map<std::vector<RankId>, int> known;
  for (std::int32_t m = 0; m < schedule.microbatches; ++m) {
    std::vector<RankId> way;
    for (std::int32_t s = 0; s < schedule.stages; ++s) way.push_back(placement.rank(StageId{s}, MicrobatchId{m}));
    const auto [entry, is_new] = known.try_emplace(way, static_cast<int>(known.size()));
    if (is_new) ways.ways.push_back(std::move(way));
    ways.of_microbatch.push_back(entry->second);
    if (!placement.is_bidirectional()) break;
  }
  if (ways.ways.size() == 1) ways.of_microbatch.clear();
  return ways;
}

std::vector<std::vector<DeviceId>> reduction_groups(const Plan& plan, const PlanStage& stage) {
  const auto width = static_cast<std::size_t>(plan.layout.tensor);
  std::vector<std::vector<DeviceId>> groups(width);
  for (std::size_t row = 0; row < plan.devices.size(); ++row) {
    const auto& devices = plan.devices[row];
    std::vector<DeviceId>& group = groups[row % width];  // the tensor index runs fastest
    group.push_back(devices[static_cast<std::size_t>(stage.rank.value)]);
    if (stage.second_rank) group.push_back(devices[static_cast<std::size_t>(stage.second_rank->value)]);
  }
  return groups;
}

namespace {

std::vector<AllReduce> plan_reductions(const Plan& plan, const PlanStage& stage) {
  const auto groups = reduction_groups(plan, stage);
  const auto all = [&](ReduceForm form) {
    std::vector<AllReduce> reductions;
    for (const auto& group : groups) {
      reductions.push_back(plan_all_reduce(plan.cluster, group, stage.cost.reduced_gradients(), form));
    }
    return reductions;
  };
  std::vector<AllReduce> fastest = all(ReduceForm::fastest);
  const bool alike = std::all_of(fastest.begin(), fastest.end(), [&](const AllReduce& reduction) {
    return reduction.phases.size() == fastest.front().phases.size();
  });
  return alike ? fastest : all(ReduceForm::flat);
}

}  // namespace

Reductions reductions_of(const Plan& plan) {
  Reductions reductions;
  std::map<std::tuple<RankId, std::optional<RankId>, Bytes>, std::size_t> known;
  for (const PlanStage& stage : plan.stages) {
    const auto [entry, is_new] =
        known.try_emplace({stage.rank, stage.second_rank, stage.cost.reduced_gradients()}, known.size());
    if (is_new) reductions.distinct.push_back(plan_reductions(plan, stage));
    reductions.of_stage.push_back(entry->second);
  }
  return reductions;
}

namespace {

// Messages of one way through the ranks.
void add_messages(const Plan& plan, const std::vector<DeviceId>& devices, const std::vector<RankId>& way,
                  std::vector<Flow>& flows) {
  const auto device = [&](std::size_t stage) { return devices[static_cast<std::size_t>(way[stage].value)]; };
  for (std::size_t s = 0; s + 1 < way.size(); ++s) {
    flows.push_back({device(s), device(s + 1), 1, plan.stages[s].cost.boundary});
  }
  for (std::size_t s = 0; s + 1 < way.size(); ++s) {
    flows.push_back({device(s + 1), device(s), 1, plan.stages[s].cost.boundary});
  }
}

void add_tied(const Plan& plan, const std::vector<DeviceId>& devices, std::vector<Flow>& flows) {
  const std::vector<DeviceId> ends{devices[static_cast<std::size_t>(plan.stages.front().rank.value)],
                                   devices[static_cast<std::size_t>(plan.stages.back().rank.value)]};
  // Two devices have one way to do it: a ring in one phase.
  const AllReduce sum = plan_all_reduce(plan.cluster, ends, plan.stages.front().cost.tied);
  for (const RingHop& hop : sum.phases.front().hops) flows.push_back({hop.from, hop.to, hop.steps, hop.bytes});
}

}  // namespace

Traffic traffic_of(const Plan& plan) {
  Traffic traffic;
  traffic.ways = ways_of(plan.schedule);
  traffic.stages = static_cast<int>(plan.stages.size());
  traffic.tied = plan.tied_ends();
  traffic.replicas.resize(plan.devices.size());
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    for (const auto& way : traffic.ways.ways) add_messages(plan, plan.devices[d], way, traffic.replicas[d]);
    traffic.first_tied_slot = traffic.replicas[d].size();
    if (traffic.tied) add_tied(plan, plan.devices[d], traffic.replicas[d]);
  }
  const Reductions all_reductions = reductions_of(plan);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    traffic.first_grad_slot.push_back(static_cast<int>(traffic.replicas.front().size()));
    traffic.sharers.push_back(plan.stages[s].second_rank ? 2 : 1);
    const auto sharing = static_cast<std::size_t>(traffic.sharers.back());
    const std::vector<AllReduce>& reductions = all_reductions.of(s);
    for (std::size_t shard = 0; shard < reductions.size(); ++shard) {
      for (const CollectivePhase& phase : reductions[shard].phases) {
        for (std::size_t i = 0; i < phase.hops.size(); ++i) {
          const RingHop& hop = phase.hops[i];
          traffic.replicas[i / sharing * reductions.size() + shard].push_back({hop.from, hop.to, hop.steps, hop.bytes});
        }
      }
    }
  }
  traffic.first_grad_slot.push_back(static_cast<int>(traffic.replicas.front().size()));
  return traffic;
}

}  // namespace stagecraft
