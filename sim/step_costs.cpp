#include <algorithm>
#include <vector>

#include "models/plan.hpp"
#include "sim/collective.hpp"
#include "sim/plan_trace.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

DeviceId device_of(const Plan& plan, std::size_t replica, std::size_t stage) {
  return plan.devices[replica][static_cast<std::size_t>(plan.stages[stage].rank.value)];
}

// The slowest replica's path across a stage boundary, for the message that goes there.
Link slowest_hop(const Plan& plan, std::size_t stage) {
  const Bytes boundary = plan.stages[stage].cost.boundary;
  Link slowest = plan.cluster.path(device_of(plan, 0, stage), device_of(plan, 0, stage + 1));
  for (std::size_t replica = 1; replica < plan.devices.size(); ++replica) {
    const Link hop = plan.cluster.path(device_of(plan, replica, stage), device_of(plan, replica, stage + 1));
    if (hop.transfer_time(boundary) > slowest.transfer_time(boundary)) slowest = hop;
  }
  return slowest;
}

}  // namespace

StepCosts step_costs(const Plan& plan) {
  StepCosts costs;
  const std::size_t stages = plan.stages.size();
  for (std::size_t s = 0; s < stages; ++s) {
    costs.stages.push_back(plan.stages[s].cost);
    if (s + 1 < stages) costs.hops.push_back(slowest_hop(plan, s));
    std::vector<DeviceId> replicas;
    for (std::size_t d = 0; d < plan.devices.size(); ++d) replicas.push_back(device_of(plan, d, s));
    costs.reduce_grad.push_back(plan_all_reduce(plan.cluster, replicas, plan.stages[s].cost.gradients).time);
  }
  if (plan.tied_ends() && plan.stages.front().rank != plan.stages.back().rank) {
    for (std::size_t d = 0; d < plan.devices.size(); ++d) {
      const std::vector<DeviceId> ends{device_of(plan, d, 0), device_of(plan, d, stages - 1)};
      costs.reduce_tied =
          std::max(costs.reduce_tied, plan_all_reduce(plan.cluster, ends, plan.stages.front().cost.tied).time);
    }
  }
  return costs;
}

Trace simulate_timeline(const Plan& plan) {
  const LoweredSchedule schedule = plan.lowered();
  Timeline timeline(schedule);
  std::vector<Timeline::Span> spans;
  Trace trace = trace_header(plan, "timeline");
  trace.step_times.push_back(timeline.evaluate(step_costs(plan), spans));
  trace.events.reserve(spans.size() * plan.devices.size());
  append_events(plan, schedule, 0, spans, trace);
  for (int replica = 1; replica < plan.replicas(); ++replica) append_copy(0, replica, trace);
  return trace;
}

}  // namespace stagecraft
