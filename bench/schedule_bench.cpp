// Making schedules: a million actions of each kind (at most 1 s), the automatic schedulers on unlike stages, the
// search.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <array>
#include <string>

#include "models/schedule/branch_and_bound.hpp"
#include "models/schedule/lower_bound.hpp"
#include "models/schedule/searched.hpp"

namespace stagecraft {
namespace {

// 8 ranks; as many micro-batches as make about a million actions and suit every kind.
ScheduleShape million(const ScheduleKind& kind) {
  for (const int stages_per_rank : {1, 2}) {
    ScheduleShape shape{8, stages_per_rank, 500'000 / (8 * stages_per_rank) / 16 * 16};
    if (kind.refuse(shape).empty()) return shape;
  }
  return {};
}

// Stages and messages that differ by up to a half.
ScheduleShape unlike(int ranks, int stages_per_rank, int microbatches) {
  ScheduleShape shape{ranks, stages_per_rank, microbatches};
  for (int s = 0; s < ranks * stages_per_rank; ++s) {
    shape.times.push_back({8.0 + s * 7 % 5, 8.0 + s * 3 % 5, 6.0 + s * 11 % 4});
  }
  shape.message = 1;
  return shape;
}

std::size_t actions(const ComputeSchedule& schedule) {
  std::size_t count = 0;
  for (const auto& rank : schedule.ranks) count += rank.size();
  return count;
}

void generate(benchmark::State& state, const ScheduleKind& kind) {
  const ScheduleShape shape = million(kind);
  std::size_t count = 0;
  for (auto _ : state) count = actions(kind.generate(shape));
  state.counters["actions"] = static_cast<double>(count);
  state.counters["actions/s"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsIterationInvariantRate);
}

void plan(benchmark::State& state, const ScheduleKind& kind, const ScheduleShape& shape) {
  for (auto _ : state) benchmark::DoNotOptimize(kind.generate(shape));
}

// As counters: how much shorter than the best named schedule, and how far from the lower bound at most.
void search(benchmark::State& state, const ScheduleShape& shape) {
  const ComputeSchedule named = best_named_schedule(shape);
  const OrderProblem problem = order_problem(shape, named);
  const double before = OrderClock(problem).run(orders_of(problem, named));
  double found = 0;
  for (auto _ : state) {
    Orders orders = orders_of(problem, named);
    found = improve_orders(problem, orders);
  }
  state.counters["named"] = before;
  state.counters["searched"] = found;
  state.counters["bound"] = lower_bound(problem);
}

void prove(benchmark::State& state) {
  const ScheduleShape shape = unlike(3, 1, 4);
  const OrderProblem problem = order_problem(shape, best_named_schedule(shape));
  for (auto _ : state) benchmark::DoNotOptimize(branch_and_bound(problem));
}

void register_all() {
  for (const ScheduleKind& kind : schedule_kinds()) {
    const std::string name(kind.name);
    if (kind.generate == generate_searched) continue;
    benchmark::RegisterBenchmark(("generate/" + name).c_str(), [&kind](auto& state) {
      generate(state, kind);
    })->Unit(benchmark::kMillisecond);
    if (name != "zb-1p" && name != "zb-2p" && name != "zb-v-auto") continue;
    benchmark::RegisterBenchmark(("plan/" + name + "/32x256").c_str(), [&kind, name](auto& state) {
      plan(state, kind, unlike(32, name == "zb-v-auto" ? 2 : 1, 256));
    })->Unit(benchmark::kMillisecond);
  }
  for (const std::array<int, 2> size : {std::array{4, 8}, {4, 16}, {8, 16}, {8, 32}, {16, 64}, {32, 256}}) {
    for (const int stages_per_rank : {1, 2}) {
      ScheduleShape shape = unlike(size[0], stages_per_rank, size[1]);
      shape.memory_limit = shape.ranks;  // as 1F1B
      const std::string name = fmt::format("search/{}x{}x{}", shape.ranks, stages_per_rank, shape.microbatches);
      benchmark::RegisterBenchmark(name.c_str(), [shape](auto& state) {
        search(state, shape);
      })->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RegisterBenchmark("prove/3x4", prove)->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace stagecraft

int main(int argc, char** argv) {
  stagecraft::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
