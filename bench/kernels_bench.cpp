// How fast the CPU operations of a training step are on one core.
//
// The linear layers are timed in turns with a bare cblas_sgemm of the same shape: `of_sgemm` is the median of the
// ratios of neighbouring runs, so that a change of the core's clock or a busy neighbour hits both sides.
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/gelu.hpp"
#include "kernels/cpu/layer_norm.hpp"
#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/optimizer.hpp"
#include "kernels/cpu/random.hpp"

namespace {

namespace cpu = stagecraft::kernels::cpu;

std::vector<float> random_floats(std::int64_t count, std::uint64_t tensor) {
  std::vector<float> values(static_cast<std::size_t>(count));
  cpu::fill_uniform(values.data(), count, {.seed = 1, .tensor = tensor}, 0, -1.0F, 1.0F);
  return values;
}

// CPU time of this thread: being preempted costs nothing.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double seconds(const auto& body) {
  const double start = thread_seconds();
  body();
  return thread_seconds() - start;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Times `op` and `bare` in turns; both do `flops`.
void compare(benchmark::State& state, double flops, const auto& op, const auto& bare) {
  std::vector<double> ratios;
  std::vector<double> times;
  op();
  bare();
  for (auto _ : state) {
    const double op_s = seconds(op);
    const double bare_s = seconds(bare);
    state.SetIterationTime(op_s);
    ratios.push_back(bare_s / op_s);
    times.push_back(op_s);
  }
  state.counters["GFLOP/s"] = flops / median(times) * 1e-9;
  state.counters["of_sgemm"] = median(ratios);
}

struct Linear {
  explicit Linear(const benchmark::State& state)
      : rows(state.range(0)),
        inputs(state.range(1)),
        outputs(state.range(2)),
        x(random_floats(rows * inputs, 0)),
        w(random_floats(outputs * inputs, 1)),
        y(random_floats(rows * outputs, 2)),
        bias(random_floats(outputs, 3)) {}
  double flops() const { return 2.0 * static_cast<double>(rows * inputs * outputs); }
  blasint n() const { return static_cast<blasint>(rows); }
  blasint i() const { return static_cast<blasint>(inputs); }
  blasint o() const { return static_cast<blasint>(outputs); }

  std::int64_t rows, inputs, outputs;
  std::vector<float> x, w, y, bias;
};

void linear_forward(benchmark::State& state) {
  Linear l(state);
  compare(
      state, l.flops(),
      [&] { cpu::linear_forward(l.y.data(), l.x.data(), l.w.data(), l.bias.data(), l.rows, l.inputs, l.outputs); },
      [&] {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, l.n(), l.o(), l.i(), 1.0F, l.x.data(), l.i(), l.w.data(),
                    l.i(), 0.0F, l.y.data(), l.o());
      });
}

void linear_input_gradient(benchmark::State& state) {
  Linear l(state);
  compare(
      state, l.flops(),
      [&] { cpu::linear_input_gradient(l.x.data(), l.y.data(), l.w.data(), l.rows, l.inputs, l.outputs); },
      [&] {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, l.n(), l.i(), l.o(), 1.0F, l.y.data(), l.o(), l.w.data(),
                    l.i(), 0.0F, l.x.data(), l.i());
      });
}

void linear_weight_gradient(benchmark::State& state) {
  Linear l(state);
  compare(
      state, l.flops(),
      [&] {
        cpu::linear_weight_gradient(l.w.data(), l.bias.data(), l.y.data(), l.x.data(), l.rows, l.inputs, l.outputs);
      },
      [&] {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, l.o(), l.i(), l.n(), 1.0F, l.y.data(), l.o(), l.x.data(),
                    l.i(), 0.0F, l.w.data(), l.i());
      });
}

// N tokens, inputs, outputs: the layers of a transformer block with C = 256.
void layer_shapes(benchmark::internal::Benchmark* b) {
  constexpr std::int64_t c = 256;
  for (const std::int64_t rows : {512, 1024}) {
    for (const std::int64_t outputs : {c, 3 * c, 4 * c}) b->Args({rows, c, outputs});
    b->Args({rows, 4 * c, c});
  }
  b->ArgNames({"N", "in", "out"})->UseManualTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK(linear_forward)->Apply(layer_shapes);
BENCHMARK(linear_input_gradient)->Apply(layer_shapes);
BENCHMARK(linear_weight_gradient)->Apply(layer_shapes);

// Only the pairs below the diagonal count as work.
void attention(benchmark::State& state, bool backward, bool stored) {
  const std::int64_t heads = 4;
  const std::int64_t size = 64;
  const std::int64_t stride = 3 * heads * size;
  const stagecraft::kernels::AttentionShape s{state.range(0), state.range(1), heads, heads, size, stride, stride};
  const std::int64_t rows = s.batch * s.time;
  const auto qkv = random_floats(rows * stride, 0);
  auto d_qkv = random_floats(rows * stride, 1);
  auto o = random_floats(rows * heads * size, 2);
  auto p = random_floats(cpu::attention_probability_floats(s), 3);
  auto workspace = random_floats(cpu::attention_workspace_floats(s), 4);
  const float* q = qkv.data();
  float* dq = d_qkv.data();
  const std::int64_t k = heads * size;
  const std::int64_t v = 2 * k;
  cpu::attention_forward(o.data(), p.data(), q, q + k, q + v, s, workspace.data());
  float* probabilities = stored ? p.data() : nullptr;
  for (auto _ : state) {
    if (backward) {
      cpu::attention_input_gradient(dq, dq + k, dq + v, o.data(), probabilities, q, q + k, q + v, s, workspace.data());
    } else {
      cpu::attention_forward(o.data(), probabilities, q, q + k, q + v, s, workspace.data());
    }
  }
  const double pairs = 0.5 * static_cast<double>(s.batch * heads * s.time * (s.time + 1));
  const double products = backward ? 4.0 : 2.0;
  state.counters["GFLOP/s"] = benchmark::Counter(products * 2.0 * pairs * static_cast<double>(size) * 1e-9,
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void attention_shapes(benchmark::internal::Benchmark* b) {
  b->Args({4, 256})->Args({1, 1024})->ArgNames({"B", "T"})->Unit(benchmark::kMicrosecond);
}
BENCHMARK_CAPTURE(attention, forward_stored, false, true)->Apply(attention_shapes);
BENCHMARK_CAPTURE(attention, forward, false, false)->Apply(attention_shapes);
BENCHMARK_CAPTURE(attention, backward_stored, true, true)->Apply(attention_shapes);
BENCHMARK_CAPTURE(attention, backward_recompute, true, false)->Apply(attention_shapes);

void count_elements(benchmark::State& state, std::int64_t count) {
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * count);
}

constexpr std::int64_t elements = std::int64_t{1024} * 1024;

void gelu_forward(benchmark::State& state) {
  const auto x = random_floats(elements, 0);
  auto y = random_floats(elements, 1);
  for (auto _ : state) cpu::gelu_forward(y.data(), x.data(), elements);
  count_elements(state, elements);
}
BENCHMARK(gelu_forward)->Unit(benchmark::kMicrosecond);

void gelu_input_gradient(benchmark::State& state) {
  const auto x = random_floats(elements, 0);
  const auto dy = random_floats(elements, 1);
  auto dx = random_floats(elements, 2);
  for (auto _ : state) cpu::gelu_input_gradient(dx.data(), dy.data(), x.data(), elements);
  count_elements(state, elements);
}
BENCHMARK(gelu_input_gradient)->Unit(benchmark::kMicrosecond);

void layer_norm_forward(benchmark::State& state) {
  constexpr std::int64_t channels = 256;
  constexpr std::int64_t rows = elements / channels;
  const auto x = random_floats(elements, 0);
  const auto gamma = random_floats(channels, 1);
  auto y = random_floats(elements, 2);
  auto mean = random_floats(rows, 3);
  auto rstd = random_floats(rows, 4);
  for (auto _ : state) {
    cpu::layer_norm_forward(y.data(), mean.data(), rstd.data(), x.data(), gamma.data(), gamma.data(), rows, channels,
                            1e-5F);
  }
  count_elements(state, elements);
}
BENCHMARK(layer_norm_forward)->Unit(benchmark::kMicrosecond);

void cross_entropy_loss_and_gradient(benchmark::State& state) {
  const std::int64_t vocabulary = state.range(0);
  const std::int64_t rows = elements / vocabulary;
  auto logits = random_floats(rows * vocabulary, 0);
  const std::vector<std::int32_t> targets(static_cast<std::size_t>(rows), 7);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        cpu::cross_entropy_loss_and_gradient(logits.data(), targets.data(), rows, vocabulary, 1.0F));
  }
  count_elements(state, rows * vocabulary);
}
BENCHMARK(cross_entropy_loss_and_gradient)->Arg(256)->Arg(50257)->ArgName("V")->Unit(benchmark::kMicrosecond);

void adamw_step(benchmark::State& state) {
  auto w = random_floats(elements, 0);
  auto m = random_floats(elements, 1);
  auto v = std::vector<float>(w.size(), 1.0F);
  const auto dw = random_floats(elements, 2);
  for (auto _ : state)
    cpu::adamw_step(w.data(), m.data(), v.data(), dw.data(), elements, {.learning_rate = 1e-6F}, 10, 1.0F);
  count_elements(state, elements);
}
BENCHMARK(adamw_step)->Unit(benchmark::kMicrosecond);

void fill_normal(benchmark::State& state) {
  auto x = random_floats(elements, 0);
  for (auto _ : state) cpu::fill_normal(x.data(), elements, {.seed = 1, .tensor = 2}, 0, 0.0F, 0.02F);
  count_elements(state, elements);
}
BENCHMARK(fill_normal)->Unit(benchmark::kMicrosecond);

}  // namespace

int main(int argc, char** argv) {
  cpu::set_blas_threads_per_caller(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
