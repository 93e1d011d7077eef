// How fast a plan is judged: the timeline by action, SimGrid by step.
//
// `ns_per_action` counts the actions of the lowered schedule, messages included. The floor of the timeline is memory: a
// sweep reads 16 bytes a computation and writes 8; `bytes_per_second` is to be held against `BM_memory_stream`, the
// same traffic without the arithmetic.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"
#include "tests/sim/plans.hpp"

namespace {

using namespace stagecraft;

constexpr int ranks = 16;

// About a million actions.
LoweredSchedule million(const char* name) { return lower(make_schedule(name, {ranks, 1, 10'800}), {true, false}); }

StepCosts uneven_costs() {
  StepCosts costs;
  for (int s = 0; s < ranks; ++s) {
    costs.stages.push_back(test::stage_cost(1.0 + 0.1 * s, 1.0, 0.9, 1e6));
    if (s > 0) costs.hops.push_back({Seconds(1e-3), BytesPerSecond(1e9)});
    costs.reduce_grad.push_back(Seconds(3));
  }
  return costs;
}

void report(benchmark::State& state, std::size_t actions) {
  const auto total = static_cast<double>(actions) * static_cast<double>(state.iterations());
  state.counters["actions"] = static_cast<double>(actions);
  state.counters["ns_per_action"] =
      benchmark::Counter(total * 1e-9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void BM_timeline_makespan(benchmark::State& state, const char* name) {
  Timeline timeline(million(name));
  const StepCosts costs = uneven_costs();
  for (auto _ : state) benchmark::DoNotOptimize(timeline.makespan(costs));
  report(state, timeline.actions());
  state.SetBytesProcessed(state.iterations() * 24 * 2 * ranks * 10'800);
}
BENCHMARK_CAPTURE(BM_timeline_makespan, 1f1b, "1f1b")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_timeline_makespan, gpipe, "gpipe")->Unit(benchmark::kMillisecond);

void BM_timeline_spans(benchmark::State& state) {
  Timeline timeline(million("1f1b"));
  const StepCosts costs = uneven_costs();
  std::vector<Timeline::Span> spans;
  for (auto _ : state) benchmark::DoNotOptimize(timeline.evaluate(costs, spans));
  report(state, timeline.actions());
}
BENCHMARK(BM_timeline_spans)->Unit(benchmark::kMillisecond);

void BM_timeline_build_and_makespan(benchmark::State& state, const char* name) {
  const LoweredSchedule schedule = million(name);
  const StepCosts costs = uneven_costs();
  std::size_t actions = 0;
  for (auto _ : state) {
    Timeline timeline(schedule);
    benchmark::DoNotOptimize(timeline.makespan(costs));
    actions = timeline.actions();
  }
  report(state, actions);
}
BENCHMARK_CAPTURE(BM_timeline_build_and_makespan, 1f1b, "1f1b")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_timeline_build_and_makespan, gpipe, "gpipe")->Unit(benchmark::kMillisecond);

// What the sweep reads and writes, without dependencies.
void BM_memory_stream(benchmark::State& state) {
  const std::size_t nodes = std::size_t{2} * ranks * 10'800;
  std::vector<std::uint64_t> read(2 * nodes, 1), written(nodes);
  for (auto _ : state) {
    for (std::size_t i = 0; i < nodes; ++i) written[i] = read[2 * i] + read[2 * i + 1];
    benchmark::DoNotOptimize(written.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 24 * static_cast<std::int64_t>(nodes));
}
BENCHMARK(BM_memory_stream)->Unit(benchmark::kMillisecond);

// From the generator to the checked list with messages.
void BM_lower(benchmark::State& state) {
  const ComputeSchedule schedule = make_schedule("1f1b", {ranks, 1, 10'800});
  std::size_t actions = 0;
  for (auto _ : state) {
    const LoweredSchedule lowered = lower(schedule, {true, false});
    actions = 0;
    for (const auto& rank : lowered.ranks) actions += rank.size();
  }
  report(state, actions);
}
BENCHMARK(BM_lower)->Unit(benchmark::kMillisecond);

// Nodes of eight devices with a NIC each, 50 GB/s; 16 MB activations; every stage's replicas side by side.
Plan large_plan(int pipeline, int replicas) {
  test::PlanShape shape;
  shape.ranks = pipeline;
  shape.replicas = replicas;
  shape.microbatches = 64;
  shape.placement = test::Placement::stage_major;
  shape.devices_per_node = shape.nics = 8;
  shape.local = {Seconds(1e-6), BytesPerSecond(450e9)};
  shape.network = {Seconds(1.5e-6), BytesPerSecond(50e9)};
  shape.costs = {test::stage_cost(2e-3, 2e-3, 2e-3, 16e6)};
  shape.costs[0].gradients = Bytes(1e9);
  shape.costs[0].optimizer = Seconds(1e-3);
  return test::make_plan(shape);
}

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The simulation runs in a child process: the time is CPU time of both, which a busy machine does not change.
void BM_simgrid(benchmark::State& state, int pipeline, int replicas, bool fold) {
  const Plan plan = large_plan(pipeline, replicas);
  for (auto _ : state) {
    const double start = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
    benchmark::DoNotOptimize(simulate_simgrid(plan, {.fold_replicas = fold}));
    state.SetIterationTime(cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN) - start);
  }
  // Computations and transfers, as if unfolded.
  const int tasks = replicas * (pipeline * 64 * 2 + (pipeline - 1) * 64 * 2 + 2 * pipeline);
  state.counters["tasks"] = tasks;
  rusage children{};
  getrusage(RUSAGE_CHILDREN, &children);
  state.counters["peak_MB"] = static_cast<double>(children.ru_maxrss) / 1000;  // of the largest child so far
}
BENCHMARK_CAPTURE(BM_simgrid, P8_D8_M64, 8, 8, false)->Unit(benchmark::kMillisecond)->UseManualTime();
BENCHMARK_CAPTURE(BM_simgrid, P8_D8_M64_folded, 8, 8, true)->Unit(benchmark::kMillisecond)->UseManualTime();
BENCHMARK_CAPTURE(BM_simgrid, P16_D64_M64_folded, 16, 64, true)->Unit(benchmark::kMillisecond)->UseManualTime();
BENCHMARK_CAPTURE(BM_simgrid, P16_D64_M64, 16, 64, false)->Unit(benchmark::kMillisecond)->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
