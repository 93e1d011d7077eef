#include "sim/simgrid.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "sim/child_process.hpp"
#include "sim/folding.hpp"
#include "sim/plan_trace.hpp"
#include "sim/sharing.hpp"
#include "sim/simgrid_execution.hpp"
#include "sim/simgrid_platform.hpp"
#include "sim/traffic.hpp"

namespace stagecraft {
namespace {

using Span = Timeline::Span;

// A plan made ready for SimGrid.
struct Simulation {
  Simulation(const Plan& simulated, const SimGridOptions& options)
      : plan(simulated),
        schedule(plan.lowered()),
        traffic(traffic_of(plan)),
        ports(plan.cluster),
        folding(options.fold_replicas && neighbours_of(plan.cluster, plan.devices).empty()
                    ? fold(traffic, ports, plan.cluster)
                    : unfolded(traffic, ports)),
        actions(std::accumulate(schedule.ranks.begin(), schedule.ranks.end(), std::size_t{0},
                                [](std::size_t sum, const auto& rank) { return sum + rank.size(); })) {}

  std::size_t spans() const { return folding.representatives.size() * actions; }

  // Fills spans(): of all representatives' actions, by representative, rank, position. SimGrid's engine, clock and
  // callbacks live in globals: once a process.
  void run(Span* spans) const {
    // Exact transfer times (no protocol overheads, no cross-traffic, no window limit), and silence.
    std::vector<std::string> options{"stagecraft", "--log=root.thresh:error", "--cfg=network/model:CM02",
                                     "--cfg=network/crosstraffic:0", "--cfg=network/TCP-gamma:1e300"};
    std::vector<char*> arguments;
    for (std::string& option : options) arguments.push_back(option.data());
    int count = static_cast<int>(arguments.size());
    simgrid::s4u::Engine engine(&count, arguments.data());
    double most = 1;
    for (const auto& flows : traffic.replicas) {
      for (const Flow& flow : flows) most = std::max(most, flow.bytes.value());
    }
    const double byte_scale = std::min(1024.0, std::exp2(std::floor(62 - std::log2(most))));
    const SimGridPlatform platform(plan.cluster, ports, traffic, folding, byte_scale);
    execute(engine, plan, schedule, traffic, folding, platform, byte_scale, spans);
  }

  const Plan& plan;
  const LoweredSchedule schedule;
  const Traffic traffic;
  const Ports ports;
  const Folding folding;
  const std::size_t actions;  // of a representative
};

Seconds last_end(std::span<const Span> spans) {
  Seconds last;
  for (const Span& span : spans) last = std::max(last, span.end);
  return last;
}

}  // namespace

std::vector<Seconds> simgrid_steps(std::span<const Plan* const> plans, const SimGridOptions& options) {
  const SharedMemory memory(plans.size() * sizeof(Seconds));
  auto* const steps = reinterpret_cast<Seconds*>(memory.data());
  run_in_children("SimGrid", plans.size(), [&](std::size_t i) {
    const Simulation simulation(*plans[i], options);
    std::vector<Span> spans(simulation.spans());
    simulation.run(spans.data());
    steps[i] = last_end(spans);
  });
  return {steps, steps + plans.size()};
}

Seconds simgrid_step(const Plan& plan, const SimGridOptions& options) {
  const Plan* const one = &plan;
  return simgrid_steps({&one, 1}, options).front();
}

Trace simulate_simgrid(const Plan& plan, const SimGridOptions& options) {
  const Simulation simulation(plan, options);
  const SharedMemory memory(simulation.spans() * sizeof(Span));
  const std::span<Span> spans(reinterpret_cast<Span*>(memory.data()), simulation.spans());
  run_in_children("SimGrid", 1, [&](std::size_t) { simulation.run(spans.data()); });
  const Folding& folding = simulation.folding;
  Trace trace = trace_header(plan, "simgrid");
  trace.events.reserve(static_cast<std::size_t>(plan.replicas()) * simulation.actions);
  // A replica's shards go in step, so that its first one stands for them in the trace.
  std::vector<int> replica_of(folding.representatives.size(), -1);  // by representative: the first that it stands for
  for (int replica = 0; replica < plan.replicas(); ++replica) {
    const std::size_t row = static_cast<std::size_t>(replica) * static_cast<std::size_t>(plan.shards());
    const auto position = static_cast<std::size_t>(folding.representative_of[row]);
    int& earlier = replica_of[position];
    if (earlier >= 0) {
      append_copy(earlier, replica, trace);
      continue;
    }
    earlier = replica;
    append_events(plan, simulation.schedule, replica, spans.subspan(position * simulation.actions, simulation.actions),
                  trace);
  }
  trace.step_times.push_back(last_end(spans));
  return trace;
}

}  // namespace stagecraft
