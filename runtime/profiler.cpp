#include "runtime/profiler.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <ctime>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "kernels/cpu/linear.hpp"
#include "models/cluster/cluster.hpp"
#include "models/text.hpp"
#include "models/version.hpp"
#include "runtime/affinity.hpp"
#include "runtime/cpu/stage.hpp"
#include "runtime/link_profiler.hpp"
#include "runtime/network_check.hpp"
#include "runtime/statistics.hpp"
#include "runtime/transport.hpp"

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

// The small network that a core runs: an embedding, some blocks and a head, with several micro-batches in flight, so
// that a layer finds in the caches what it would find in a step: the activations of older micro-batches are gone.
constexpr std::int64_t measured_blocks = 3;
constexpr std::int64_t least_in_flight = 2;
constexpr std::int64_t most_in_flight = 8;
constexpr std::int64_t cache_floats = 12 << 20;
constexpr int most_repetitions = 60;
// Each combination of micro-batch and recomputation is visited this often if there is time, in turn, so that a machine
// that is slow for a while is slow for all of them.
constexpr int most_rounds = 5;

// Seconds that one layer kind took, one entry a call.
struct Samples {
  std::vector<double> forward, recompute, backward_input, backward_weight;
};

struct Kinds {
  Samples embedding, block, head;
  std::vector<double> optimizer;  // a parameter

  const Samples& operator[](std::size_t kind) const { return kind == 0 ? embedding : kind == 1 ? block : head; }
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void append(std::vector<double>& to, const std::vector<double>& from) { to.insert(to.end(), from.begin(), from.end()); }

void append(Samples& to, const Samples& from) {
  append(to.forward, from.forward);
  append(to.recompute, from.recompute);
  append(to.backward_input, from.backward_input);
  append(to.backward_weight, from.backward_weight);
}

void append(Kinds& to, const Kinds& from) {
  append(to.embedding, from.embedding);
  append(to.block, from.block);
  append(to.head, from.head);
  append(to.optimizer, from.optimizer);
}

// One core's copy of the measured network.
class Core {
 public:
  Core(const StageSpec& spec)
      : spec_(spec),
        stage_(spec, std::nullopt, pool_),
        workspace_(pool_.allocate(stage_.layout().workspace, "workspace")) {
    stage_.set_workspace(workspace_.data());
    stage_.parameters().initialize(1);
    for (const auto& entry : stage_.parameters().entries()) parameters_ += entry.parameter.count();
  }

  // One step of the measured network; times go to `kinds` unless it is null.
  void step(Kinds* kinds) {
    for (std::int64_t m = 0; m < spec_.microbatches; ++m) {
      stage_.open(m);
      fill_tokens(m);
      stage_.forward(m, nullptr);
      if (kinds != nullptr) {
        each(*kinds, [](Samples& s, const cpu::LayerTimes& t) { s.forward.push_back(t.forward); });
      }
    }
    for (std::int64_t m = 0; m < spec_.microbatches; ++m) {
      stage_.backward(m, nullptr, nullptr);
      if (kinds == nullptr) continue;
      each(*kinds, [](Samples& s, const cpu::LayerTimes& t) {
        s.recompute.push_back(t.recompute);
        s.backward_input.push_back(t.backward_input);
        s.backward_weight.push_back(t.backward_weight);
      });
    }
    const auto start = Clock::now();
    stage_.parameters().squared_gradient_norm();  // as clipping does
    stage_.parameters().step({}, 1e-4, ++steps_, 1.0);
    if (kinds != nullptr) kinds->optimizer.push_back(seconds_since(start) / static_cast<double>(parameters_));
  }

  const cpu::Stage& stage() const { return stage_; }

 private:
  template <class Take>
  void each(Kinds& kinds, Take&& take) {
    const auto& times = stage_.last_times();
    take(kinds.embedding, times.front());
    for (std::size_t i = 1; i + 1 < times.size(); ++i) take(kinds.block, times[i]);
    take(kinds.head, times.back());
  }

  void fill_tokens(std::int64_t m) {
    const auto tokens = stage_.tokens(m), targets = stage_.targets(m);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      next_ = next_ * 1664525U + 1013904223U;  // Knuth's "quick and dirty" generator: any tokens do
      tokens[i] = targets[i] = static_cast<std::int32_t>(
          (std::uint64_t{next_} * static_cast<std::uint64_t>(spec_.transformer.vocabulary)) >> 32U);
    }
  }

  StageSpec spec_;
  MemoryPool pool_;
  cpu::Stage stage_;
  Buffer workspace_;
  std::int64_t parameters_ = 0;
  std::int64_t steps_ = 0;
  std::uint32_t next_ = 1;
};

// One combination of micro-batch and recomputation, and what it gave.
struct Combination {
  StageSpec spec;
  Kinds kinds;
  Bytes stash[3], split[3], workspace[3];  // embedding, block, head
};

// Runs it on every core at once until the budget, which setting up takes its share of, is spent: once at least.
void measure(Combination& combination, const std::vector<int>& cores, Seconds budget, const std::atomic<bool>* stop) {
  std::vector<Kinds> kinds(cores.size());
  std::vector<std::thread> threads;
  std::barrier gate(static_cast<std::ptrdiff_t>(cores.size()));
  std::atomic<bool> done{false};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto start = Clock::now();
  for (std::size_t i = 0; i < cores.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        pin_to_core(cores[i]);
        Core core(combination.spec);
        core.step(nullptr);
        gate.arrive_and_wait();
        for (int repetition = 0; !done; ++repetition) {
          core.step(&kinds[i]);
          gate.arrive_and_wait();
          const bool enough = repetition + 1 >= most_repetitions || seconds_since(start) > budget.value();
          if (i == 0 && (enough || (stop != nullptr && *stop))) done = true;
          gate.arrive_and_wait();
        }
        const cpu::StageLayout& layout = core.stage().layout();
        const std::size_t layers[] = {0, 1, layout.layers.size() - 1};
        for (std::size_t k = 0; i == 0 && k < 3; ++k) {
          combination.stash[k] = Bytes(4.0 * static_cast<double>(cpu::layer_stash(layout, layers[k])));
          combination.split[k] = Bytes(4.0 * static_cast<double>(cpu::layer_split(layout, layers[k])));
          combination.workspace[k] = Bytes(4.0 * static_cast<double>(cpu::layer_workspace(layout, layers[k])));
        }
      } catch (...) {  // no memory
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
        done = true;
      }
      gate.arrive_and_drop();  // nobody waits for this core any more
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  for (const Kinds& one : kinds) append(combination.kinds, one);
}

LayerSample sample_of(const Samples& samples, std::int64_t microbatch, bool recomputed, Bytes stash, Bytes split,
                      Bytes workspace) {
  LayerSample sample;
  sample.microbatch = microbatch;
  sample.forward = measured(samples.forward);
  sample.backward_input = measured(samples.backward_input);
  sample.backward_weight = measured(samples.backward_weight);
  if (recomputed) sample.recompute = measured(samples.recompute);
  sample.stash = stash;
  sample.split = split;
  sample.workspace = workspace;
  return sample;
}

void warn_about_spread(Profile& profile) {
  for (const LayerProfile& layer : profile.layers) {
    for (const LayerSample& sample : layer.samples) {
      const double spread = (sample.forward.high - sample.forward.low) / sample.forward.median;
      if (layer.kind != "block" || spread < 0.25) continue;
      profile.warnings.push_back(fmt::format(
          "noisy machine: the forward of a block took {} to {} (micro-batch {}, recompute {})",
          to_string(sample.forward.low), to_string(sample.forward.high), sample.microbatch, name(layer.recompute)));
      return;
    }
  }
}

void check_options(const Transformer& transformer, const ProfileOptions& options) {
  if (options.sequence < 1 || options.sequence > transformer.max_sequence) {
    throw bad_input("sequence: expected 1 to the network's {} positions, got {}", transformer.max_sequence,
                    options.sequence);
  }
  if (options.microbatches.empty() || options.recompute.empty()) {
    throw bad_input("expected at least one micro-batch size and one recompute mode to measure");
  }
  for (const std::int64_t microbatch : options.microbatches) {
    if (microbatch < 1) throw bad_input("micro-batch: expected at least 1, got {}", microbatch);
  }
}

std::vector<Combination> combinations_of(const Network& network, const ProfileOptions& options) {
  Transformer transformer = *network.transformer;
  transformer.layers = std::min(transformer.layers, measured_blocks);
  const std::set<std::int64_t> microbatches(options.microbatches.begin(), options.microbatches.end());
  std::vector<Combination> combinations;
  for (const Recompute recompute : options.recompute) {
    for (const std::int64_t microbatch : microbatches) {
      StageSpec spec{.transformer = transformer,
                     .layers = {0, transformer.layers + 2},
                     .shape = {microbatch, options.sequence},
                     .microbatches = 1,
                     .recompute = recompute,
                     .fused_attention = false,
                     .optimizer = options.optimizer,
                     .gradient_scale = 1.0F / static_cast<float>(microbatch * options.sequence)};
      spec.microbatches = std::clamp(cache_floats / cpu::lay_out(spec).slab, least_in_flight, most_in_flight);
      combinations.push_back({spec, {}, {}, {}, {}});
    }
  }
  return combinations;
}

void measure_layers(const Network& network, const ProfileOptions& options, const std::vector<int>& cores,
                    Profile& profile, const ProfileProgress& progress) {
  std::vector<Combination> combinations = combinations_of(network, options);
  const int total = static_cast<int>(combinations.size()) * most_rounds;
  const auto start = Clock::now();
  for (int round = 0, done = 0; round < most_rounds; ++round) {
    // Another round would end farther from the budget than the last one did.
    const double elapsed = seconds_since(start);
    if (round > 0 && elapsed + elapsed / round / 2 > options.time_budget.value()) break;
    for (Combination& combination : combinations) {
      const StageSpec& spec = combination.spec;
      if (progress) {
        progress(done++, total,
                 fmt::format("micro-batch {}, recompute {}", spec.shape.microbatch, name(spec.recompute)));
      }
      if (options.stop != nullptr && *options.stop) throw device_error("interrupted");
      measure(combination, cores, options.time_budget / static_cast<double>(total), options.stop);
    }
  }
  if (progress) progress(total, total, "links");

  const LayerId ids[] = {0, 1, static_cast<LayerId>(network.transformer->layers + 1)};
  for (const Recompute recompute : options.recompute) {
    std::vector<double> optimizer;
    for (const Combination& combination : combinations) {
      if (combination.spec.recompute == recompute) append(optimizer, combination.kinds.optimizer);
    }
    for (std::size_t k = 0; k < 3; ++k) {
      LayerProfile kind;
      kind.kind = network.graph[ids[k]].kind;
      kind.recompute = recompute;
      kind.parameters = network.graph[ids[k]].parameters;
      kind.optimizer = scaled(measured(optimizer), static_cast<double>(kind.parameters));
      for (const Combination& combination : combinations) {
        if (combination.spec.recompute != recompute) continue;
        const bool recomputed = k == 1 && recompute == Recompute::full;
        kind.samples.push_back(sample_of(combination.kinds[k], combination.spec.shape.microbatch, recomputed,
                                         combination.stash[k], combination.split[k], combination.workspace[k]));
      }
      profile.layers.push_back(std::move(kind));
    }
  }
}

}  // namespace

Profile profile_cpu(const Network& network, const ProfileOptions& options, const ProfileProgress& progress) {
  check_trainable(network);
  check_options(*network.transformer, options);
  kernels::cpu::set_blas_threads_per_caller(1);
  std::vector<int> cores = available_cores();
  if (options.cores > static_cast<int>(cores.size())) {
    throw device_error("cores: asked to measure {}, this process may use {}", options.cores, cores.size());
  }
  if (options.cores > 0) cores.resize(static_cast<std::size_t>(options.cores));

  const Cluster machine = local_cpu();
  Profile profile;
  profile.tool_version = version;
  profile.machine = fmt::format("{}, {}", machine.device_types.front().name,
                                counted(static_cast<long long>(machine.devices.size()), "core"));
  profile.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  profile.network = network.name;
  profile.device = machine.device_types.front();
  profile.devices = static_cast<int>(cores.size());
  profile.sequence = options.sequence;
  profile.precision = DataType::fp32;
  profile.optimizer = options.optimizer;

  if (options.mpi == nullptr || options.mpi->process() == 0) {
    measure_layers(network, options, cores, profile, progress);
    profile.links.push_back(profile_channel(cores));
    warn_about_spread(profile);
  }
  if (options.mpi != nullptr && options.mpi->processes() > 1) {
    if (auto link = profile_mpi(*options.mpi)) profile.links.push_back(std::move(*link));
  }
  return profile;
}

}  // namespace stagecraft
