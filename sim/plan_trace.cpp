#include "sim/plan_trace.hpp"

#include <algorithm>
#include <utility>

#include "models/schedule/checker.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

std::size_t index(StageId stage) { return static_cast<std::size_t>(stage.value); }

// Peak of one rank: what it always holds, the most that its stashes come to while it goes through its list, and for
// each of its stages the most splits between I and W.
Bytes peak_memory(const Plan& plan, std::size_t rank) {
  const std::vector<int> splits = peak_split_by_stage(plan.schedule);
  Bytes held, workspace, stash, most_stash;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const PlanStage& stage = plan.stages[s];
    if (!stage.on(RankId{static_cast<std::int32_t>(rank)})) continue;
    held += stage.cost.weights + stage.cost.gradients + stage.cost.optimizer_state + stage.cost.split * splits[s];
    workspace = std::max(workspace, stage.cost.workspace);
  }
  for (const Action& action : plan.schedule.ranks[rank]) {
    const Bytes bytes = plan.stages[index(action.stage)].cost.stash;
    if (action.kind == ActionKind::forward) stash += bytes;
    most_stash = std::max(most_stash, stash);
    if (action.kind == ActionKind::backward || action.kind == ActionKind::backward_weight) stash -= bytes;
    if (plan.schedule.forward_only) stash -= bytes;
  }
  return held + workspace + most_stash;
}

// What an action moves between devices.
Bytes bytes_of(const Plan& plan, const Action& action) {
  const StageCost& cost = plan.stages[index(action.stage)].cost;
  switch (action.kind) {
    case ActionKind::send_forward:
    case ActionKind::recv_backward:
      return cost.boundary;
    case ActionKind::recv_forward:
    case ActionKind::send_backward:
      return plan.stages[index(action.stage) - 1].cost.boundary;
    case ActionKind::reduce_tied:
      return cost.tied;
    case ActionKind::reduce_grad:
      return cost.reduced_gradients();
    default:
      return Bytes(0);
  }
}

}  // namespace

Trace trace_header(const Plan& plan, std::string source) {
  Trace trace;
  trace.source = std::move(source);
  trace.tool_version = version;
  trace.network = plan.network.name;
  trace.schedule = plan.schedule.name;
  trace.stages = plan.schedule.stages;
  trace.microbatches = plan.schedule.microbatches;
  trace.ranks = plan.ranks();
  trace.replicas = plan.replicas();
  trace.tokens_per_step = plan.batch.global * plan.batch.sequence;
  for (const PlanStage& stage : plan.stages) trace.stage_ranks.push_back(stage.rank);
  std::vector<Bytes> peaks;
  for (std::size_t rank = 0; rank < plan.schedule.ranks.size(); ++rank) peaks.push_back(peak_memory(plan, rank));
  for (int replica = 0; replica < plan.replicas(); ++replica) {
    trace.peak_memory.insert(trace.peak_memory.end(), peaks.begin(), peaks.end());
  }
  return trace;
}

void append_events(const Plan& plan, const LoweredSchedule& schedule, int replica,
                   std::span<const Timeline::Span> spans, Trace& trace) {
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const auto first = static_cast<std::ptrdiff_t>(trace.events.size());
    for (const Action& action : schedule.ranks[rank]) {
      const Timeline::Span span = spans[at++];
      if (is_receive(action.kind) && span.start == span.end) continue;
      trace.events.push_back(
          {0, replica, RankId{static_cast<std::int32_t>(rank)}, action, span.start, span.end, bytes_of(plan, action)});
    }
    // Only reductions can begin later than the list says: they wait for others while their rank goes on.
    const auto earlier = [](const TraceEvent& a, const TraceEvent& b) { return a.start < b.start; };
    const auto begin = trace.events.begin() + first;
    if (!std::is_sorted(begin, trace.events.end(), earlier)) std::stable_sort(begin, trace.events.end(), earlier);
  }
}

void append_copy(int earlier, int replica, Trace& trace) {
  auto& events = trace.events;
  const auto of = [&](int wanted) {
    return static_cast<std::size_t>(
        std::partition_point(events.begin(), events.end(),
                             [&](const TraceEvent& event) { return event.replica < wanted; }) -
        events.begin());
  };
  const std::size_t first = of(earlier), last = of(earlier + 1);
  for (std::size_t i = first; i < last; ++i) {
    events.push_back(events[i]);
    events.back().replica = replica;
  }
}

}  // namespace stagecraft
