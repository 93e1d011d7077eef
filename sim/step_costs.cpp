#include <algorithm>
#include <vector>

#include "models/plan.hpp"
#include "sim/collective.hpp"
#include "sim/plan_trace.hpp"
#include "sim/timeline.hpp"
#include "sim/traffic.hpp"

namespace stagecraft {
namespace {

DeviceId device_of(const Plan& plan, std::size_t row, RankId rank) {
  return plan.devices[row][static_cast<std::size_t>(rank.value)];
}

// The slowest path across each stage boundary, over replicas, shards and ways, for the message that goes there.
std::vector<Link> slowest_hops(const Plan& plan) {
  std::vector<Link> hops;
  const Ways ways = ways_of(plan.schedule);
  for (std::size_t d = 0; d < plan.devices.size(); ++d) {
    for (const auto& way : ways.ways) {
      for (std::size_t s = 0; s + 1 < way.size(); ++s) {
        const Link hop = plan.cluster.path(device_of(plan, d, way[s]), device_of(plan, d, way[s + 1]));
        const Bytes boundary = plan.stages[s].cost.boundary;
        if (hops.size() <= s) {
          hops.push_back(hop);
        } else if (hop.transfer_time(boundary) > hops[s].transfer_time(boundary)) {
          hops[s] = hop;
        }
      }
    }
  }
  return hops;
}

}  // namespace

StepCosts step_costs(const Plan& plan) {
  StepCosts costs;
  costs.hops = slowest_hops(plan);
  costs.neighbours = neighbours_of(plan.cluster, plan.devices);
  const Reductions reductions = reductions_of(plan);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    costs.stages.push_back(plan.stages[s].cost);
    Seconds& slowest = costs.reduce_grad.emplace_back();
    for (const AllReduce& reduction : reductions.of(s)) slowest = std::max(slowest, reduction.time);
  }
  if (plan.tied_ends()) {
    for (std::size_t d = 0; d < plan.devices.size(); ++d) {
      const std::vector<DeviceId> ends{device_of(plan, d, plan.stages.front().rank),
                                       device_of(plan, d, plan.stages.back().rank)};
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
  trace.events.reserve(spans.size() * static_cast<std::size_t>(plan.replicas()));
  append_events(plan, schedule, 0, spans, trace);
  for (int replica = 1; replica < plan.replicas(); ++replica) append_copy(0, replica, trace);
  return trace;
}

}  // namespace stagecraft
