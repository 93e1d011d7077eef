// The search of the full layout space against its targets: GPT-3 175B on 4096 A100 covers at least 100 million points
// in at most 2 s and 200 MB on two cores; the step model judges at least 2 million layouts a second a core; the best 20
// are confirmed in SimGrid in at most 2 s. Beside it the same job by judging every point, on a space where that ends.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include "models/text.hpp"
#include "planner/confirm.hpp"
#include "planner/layout_plan.hpp"
#include "planner/layout_search.hpp"

namespace stagecraft {
namespace {

struct Job {
  explicit Job(const std::string& cluster_name, std::int64_t global_batch)
      : network(load_network("gpt3-175b")),
        cluster(load_cluster(cluster_name)),
        model({.network = *network.transformer, .global_batch = global_batch, .sequence = 2048}, machine_of(cluster)) {
    choices.devices = static_cast<std::int64_t>(cluster.devices.size());
  }
  Network network;
  Cluster cluster;
  StepModel model;
  LayoutChoices choices;
};

double peak_megabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1000;
}

void report(benchmark::State& state, const LayoutResult& result) {
  const LayoutCounts& counts = result.counts;
  state.SetLabel(to_string(result.best.front().layout));
  state.counters["points"] = static_cast<double>(counts.points);
  state.counters["judged"] = static_cast<double>(counts.judged);
  state.counters["slower_widths"] = static_cast<double>(counts.slower_widths);
  state.counters["slower"] = static_cast<double>(counts.slower);
  state.counters["too_large"] = static_cast<double>(counts.too_large);
  state.counters["dominated"] = static_cast<double>(counts.dominated);
  state.counters["step_s"] = result.best.front().estimate.time.value();
  state.counters["peak_MB"] = peak_megabytes();
}

// The space is listed each time, too: a user waits for both.
void search_of_gpt3_175b_on_4096_a100(benchmark::State& state) {
  const Job job("dgx-a100:512", 1536);
  LayoutResult result;
  for (auto _ : state) result = search_layouts(LayoutSpace(job.model, job.choices));
  report(state, result);
}
BENCHMARK(search_of_gpt3_175b_on_4096_a100)->Unit(benchmark::kMillisecond)->UseRealTime()->MeasureProcessCPUTime();

Job small_job() {
  Job job("dgx-a100:2", 32);
  job.choices.context = 1;
  job.choices.tensor = 8;
  return job;
}

void search_small(benchmark::State& state) {
  const Job job = small_job();
  const LayoutSpace space(job.model, job.choices);
  LayoutResult result;
  for (auto _ : state) result = search_layouts(space);
  report(state, result);
}
BENCHMARK(search_small)->Unit(benchmark::kMillisecond)->UseRealTime()->MeasureProcessCPUTime();

void judge_every_point_of_the_same(benchmark::State& state) {
  const Job job = small_job();
  const LayoutSpace space(job.model, job.choices);
  LayoutResult result;
  for (auto _ : state) result = judge_all_layouts(space);
  report(state, result);
}
BENCHMARK(judge_every_point_of_the_same)->Unit(benchmark::kMillisecond)->Iterations(1);

void estimate(benchmark::State& state) {
  const Job job("dgx-a100:512", 1536);
  ParallelLayout layout = parse_layout("p16 v6 t8 d32 b1 m48 interleaved-1f1b sp zero1 overlap=gradients,parameters");
  const Shard shard = job.model.shard(layout);
  for (auto _ : state) {
    layout.zero ^= 1;
    benchmark::DoNotOptimize(job.model.estimate(layout, shard));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(estimate);

// Plans made, played on the timeline and then in SimGrid with contention, as `plan` does. SimGrid runs in children, a
// core each: wall time is what counts, and the CPU time is the parent's alone.
void confirm_the_best_20(benchmark::State& state) {
  const Job job("dgx-a100:512", 1536);
  const LayoutResult result = search_layouts(LayoutSpace(job.model, job.choices));
  double slowest = 0;
  for (auto _ : state) {
    std::vector<Plan> plans;
    for (const JudgedLayout& judged : result.best) {
      plans.push_back(make_plan(job.model, job.network, job.cluster, judged.layout));
    }
    std::vector<Plan*> confirmed;
    for (Plan& plan : plans) confirmed.push_back(&plan);
    confirm(confirmed);
    for (const Plan& plan : plans) slowest = std::max(slowest, plan.prediction.simgrid_step->value());
  }
  state.counters["plans"] = static_cast<double>(result.best.size());
  state.counters["slowest_step_s"] = slowest;
}
BENCHMARK(confirm_the_best_20)->Unit(benchmark::kMillisecond)->UseRealTime()->MeasureProcessCPUTime();

}  // namespace
}  // namespace stagecraft

BENCHMARK_MAIN();
