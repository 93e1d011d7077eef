// How fast the CPU backend trains: what of OpenBLAS's rate is left inside a block, a message, and a step.
//
// Times are CPU time of the thread and ratios are medians of neighbouring runs, so that a busy machine hits both sides.
// The shapes are those of the demo network (hidden 192, 6 heads, ffn 768, sequence 128).
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <time.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/random.hpp"
#include "models/statistics.hpp"
#include "runtime/cpu/stage.hpp"
#include "runtime/transport.hpp"

namespace {

using namespace stagecraft;

Transformer demo_network() {
  Transformer t;
  t.family = "gpt2";
  t.layers = 6;
  t.hidden = 192;
  t.heads = t.kv_heads = 6;
  t.head_size = 32;
  t.ffn = 768;
  t.vocabulary = 256;
  t.max_sequence = 256;
  t.qkv_bias = t.linear_bias = true;
  return t;
}

constexpr std::int64_t sequence = 128;
constexpr int blocks = 3;  // what a rank of a two-stage pipeline has
constexpr int in_flight = 2;

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

// A linear layer of a block with buffers of its own, as large and as many as in a step.
struct LinearLayer {
  LinearLayer(std::int64_t n, std::int64_t i, std::int64_t o) : rows(n), inputs(i), outputs(o) {
    for (auto [buffer, count] :
         {std::pair{&x, n * i}, {&dx, n * i}, {&w, o * i}, {&dw, o * i}, {&y, n * o}, {&dy, n * o}}) {
      buffer->resize(static_cast<std::size_t>(count));
      kernels::cpu::fill_uniform(buffer->data(), count, {1, 2}, 0, -1, 1);
    }
    bias.resize(static_cast<std::size_t>(o));
    d_bias.resize(static_cast<std::size_t>(o));
  }

  void ours() {
    kernels::cpu::linear_forward(y.data(), x.data(), w.data(), bias.data(), rows, inputs, outputs);
    kernels::cpu::linear_input_gradient(dx.data(), dy.data(), w.data(), rows, inputs, outputs);
    kernels::cpu::linear_weight_gradient(dw.data(), d_bias.data(), dy.data(), x.data(), rows, inputs, outputs);
  }
  void bare() {
    const auto n = static_cast<blasint>(rows), i = static_cast<blasint>(inputs), o = static_cast<blasint>(outputs);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, o, i, 1, x.data(), i, w.data(), i, 0, y.data(), o);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, i, o, 1, dy.data(), o, w.data(), i, 0, dx.data(), i);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, o, i, n, 1, dy.data(), o, x.data(), i, 1, dw.data(), i);
  }
  double flops() const { return 6.0 * static_cast<double>(rows * inputs * outputs); }

  std::int64_t rows, inputs, outputs;
  std::vector<float> x, dx, w, dw, y, dy, bias, d_bias;
};

std::vector<LinearLayer> linear_layers(std::int64_t rows, const Transformer& t) {
  std::vector<LinearLayer> list;
  for (int i = 0; i < blocks; ++i) {
    list.emplace_back(rows, t.hidden, 3 * t.hidden);
    list.emplace_back(rows, t.hidden, t.hidden);
    list.emplace_back(rows, t.hidden, t.ffn);
    list.emplace_back(rows, t.ffn, t.hidden);
  }
  return list;
}

// A step of three blocks against bare sgemm of the same products. `products_of_sgemm`: the rate of our linear layers
// (with bias) over that of OpenBLAS alone; `sgemm_share`: how much of the whole step, with attention, norms, GELU and
// residuals, bare sgemm of the linear layers would take.
void BM_blocks(benchmark::State& state) {
  kernels::cpu::set_blas_threads_per_caller(1);
  const Transformer transformer = demo_network();
  const StageSpec spec{.transformer = transformer,
                       .layers = {1, 1 + blocks},
                       .shape = {state.range(0), sequence},
                       .microbatches = in_flight,
                       .recompute = Recompute::none,
                       .fused_attention = false,
                       .optimizer = Optimizer::adamw,
                       .gradient_scale = 1};
  MemoryPool pool;
  cpu::Stage stage(spec, std::nullopt, pool);
  stage.parameters().initialize(1);
  const Buffer workspace = pool.allocate_zeroed(stage.layout().workspace, "workspace");
  const Buffer output = pool.allocate_zeroed(stage.layout().boundary, "output");
  const Buffer gradient = pool.allocate_zeroed(stage.layout().boundary, "gradient");
  stage.set_workspace(workspace.data());
  const auto step = [&] {
    for (int m = 0; m < in_flight; ++m) {
      stage.open(m);
      kernels::cpu::fill_uniform(stage.input(m), stage.layout().boundary, {1, 3}, 0, -1, 1);
    }
    return seconds([&] {
      for (int m = 0; m < in_flight; ++m) stage.forward(m, output.data());
      for (int m = 0; m < in_flight; ++m) stage.backward(m, output.data(), gradient.data());
    });
  };
  auto layers = linear_layers(stage.layout().rows, transformer);
  const auto all = [&](auto run) {
    return seconds([&] {
      for (int m = 0; m < in_flight; ++m) {
        for (LinearLayer& layer : layers) run(layer);
      }
    });
  };
  std::vector<double> products, share, times;
  step();
  for (auto _ : state) {
    const double ours = all([](LinearLayer& layer) { layer.ours(); });
    const double bare = all([](LinearLayer& layer) { layer.bare(); });
    const double whole = step();
    state.SetIterationTime(whole);
    products.push_back(bare / ours);
    share.push_back(bare / whole);
    times.push_back(bare);
  }
  double flops = 0;
  for (const LinearLayer& layer : layers) flops += in_flight * layer.flops();
  state.counters["sgemm_GFLOP/s"] = flops / median(times) * 1e-9;
  state.counters["products_of_sgemm"] = median(products);
  state.counters["sgemm_share"] = median(share);
}
BENCHMARK(BM_blocks)->ArgName("microbatch")->Arg(1)->Arg(4)->Arg(8)->UseManualTime()->Unit(benchmark::kMillisecond);

// Half a round trip between two threads.
void BM_channel(benchmark::State& state) {
  ChannelNetwork network(2, {});
  const auto size = static_cast<std::size_t>(state.range(0));
  const MessageTag tag{Lane::forward, 0, 0};
  std::thread echo([&] {
    std::vector<std::byte> message(size);
    const auto end = network.endpoint(1);
    try {
      for (;;) {
        end->receive(0, tag, message);
        end->send(0, tag, message);
      }
    } catch (const Error&) {  // the abort below
    }
  });
  std::vector<std::byte> message(size);
  const auto end = network.endpoint(0);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    end->send(1, tag, message);
    end->receive(1, tag, message);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 2);
  }
  network.abort();
  echo.join();
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_channel)->RangeMultiplier(16)->Range(1 << 8, 1 << 20)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
