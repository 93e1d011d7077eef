#include "runtime/cuda/profiler.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <barrier>
#include <ctime>
#include <exception>
#include <mutex>
#include <thread>

#include "models/network/layer_graph.hpp"
#include "models/version.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/cuda/local_gpu.hpp"
#include "runtime/cuda/requirements.hpp"
#include "runtime/make_executor.hpp"
#include "runtime/network_check.hpp"
#include "runtime/statistics.hpp"

namespace stagecraft::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t measured_blocks = 6;
// The first micro-batch of a step, which replaces gradients instead of adding, is not counted.
constexpr int microbatches = 3;
// The first step loads kernels, the second captures graphs.
constexpr int warm_up_steps = 2;
constexpr int least_steps = 8;
constexpr int most_steps = 60;
constexpr int stages = 3;  // embedding, blocks, head

// Seconds of each action kind of each stage, and of the optimizer a parameter.
struct Times {
  std::vector<double> forward[stages], backward_input[stages], backward_weight[stages];
  std::vector<double> optimizer;
};

// Every micro-batch forward and, with input and weight gradient apart, backward through the three stages.
ComputeSchedule one_after_the_other() {
  ComputeSchedule schedule{"custom", stages, microbatches, {{}}};
  for (int m = 0; m < microbatches; ++m) {
    for (int s = 0; s < stages; ++s) schedule.ranks[0].push_back({ActionKind::forward, StageId{s}, MicrobatchId{m}});
    for (int s = stages - 1; s >= 0; --s) {
      schedule.ranks[0].push_back({ActionKind::backward_input, StageId{s}, MicrobatchId{m}});
      schedule.ranks[0].push_back({ActionKind::backward_weight, StageId{s}, MicrobatchId{m}});
    }
  }
  return schedule;
}

// One device of the cluster runs the short network.
Plan measured_plan(const Network& network, const ProfileOptions& options, const ProfileConditions& conditions,
                   const Cluster& cluster, DeviceId device, std::int64_t microbatch, Recompute recompute) {
  Plan plan;
  plan.network.name = network.name;
  plan.network.transformer = network.transformer;
  Transformer& t = *plan.network.transformer;
  t.layers = std::min(t.layers, measured_blocks);
  plan.network.graph = build_graph(t);
  plan.cluster = cluster;
  plan.batch = {microbatch * microbatches, microbatch, microbatches, options.sequence};
  plan.precision = conditions.precision;
  plan.optimizer = options.optimizer;
  plan.recompute = recompute;
  plan.order = topological_order(plan.network.graph);
  plan.stages = {
      {{0, 1}, RankId{0}, {}}, {{1, t.layers + 1}, RankId{0}, {}}, {{t.layers + 1, t.layers + 2}, RankId{0}, {}}};
  plan.devices = {{device}};
  plan.schedule = one_after_the_other();
  return plan;
}

// A device's copy of the short network.
class Runner {
 public:
  Runner(const Plan& plan, const TrainingOptions& options, Transport& transport)
      : plan_(plan),
        schedule_(plan.lowered()),
        placement_(plan.schedule),
        executor_(
            make_executor({plan_, schedule_, placement_, options, transport,
                           [this](auto, auto, auto tokens, auto targets) { fill(tokens), fill(targets); }, 0, 0})) {
    const int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / transport.workers());
    std::vector<float> values;
    for (std::size_t i = 0; i < executor_->parameters().size(); ++i) {
      const Parameter& parameter = executor_->parameters()[i].parameter;
      values.resize(static_cast<std::size_t>(parameter.count()));
      fill_initial(parameter, 1, values, threads);
      executor_->write(i, -1, 0, values);
      parameters_ += parameter.count();
    }
  }

  // One step; times go to `times` unless it is null.
  void step(Times* times) {
    const auto& actions = schedule_.ranks.front();
    executor_->begin_step(++step_);
    bool first_update = true;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (is_compute(actions[i].kind)) executor_->compute(i);
      if (actions[i].kind != ActionKind::optimizer_step) continue;
      if (std::exchange(first_update, false)) executor_->squared_gradient_norm();  // as clipping does
      executor_->optimizer_step(i, 1e-4, 1);
    }
    executor_->end_step();
    if (times != nullptr) take(*times);
  }

  // What a neighbour in a pipeline does most of the time. REQUIRES: two steps before, which left activations.
  void run_blocks() {
    const auto& actions = schedule_.ranks.front();
    executor_->begin_step(++step_);
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (is_compute(actions[i].kind) && actions[i].stage.value == 1) executor_->compute(i);
    }
    executor_->end_step();
  }

 private:
  void take(Times& times) const {
    const auto& actions = schedule_.ranks.front();
    Clock::time_point computed, updated;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const Action& action = actions[i];
      const auto when = executor_->device_time(i);
      if (!when) continue;
      (is_compute(action.kind) ? computed : updated) = when->end;
      if (!is_compute(action.kind) || action.microbatch.value == 0) continue;
      auto& of_kind = action.kind == ActionKind::forward          ? times.forward
                      : action.kind == ActionKind::backward_input ? times.backward_input
                                                                  : times.backward_weight;
      of_kind[action.stage.value].push_back(std::chrono::duration<double>(when->end - when->start).count());
    }
    times.optimizer.push_back(std::chrono::duration<double>(updated - computed).count() /
                              static_cast<double>(parameters_));
  }

  void fill(std::span<std::int32_t> tokens) {
    for (std::int32_t& token : tokens) {
      next_ = next_ * 1664525U + 1013904223U;  // Knuth's "quick and dirty" generator: any tokens do
      token = static_cast<std::int32_t>(
          (std::uint64_t{next_} * static_cast<std::uint64_t>(plan_.network.transformer->vocabulary)) >> 32U);
    }
  }

  const Plan& plan_;
  LoweredSchedule schedule_;
  Placement placement_;
  std::uint32_t next_ = 1;
  std::int64_t parameters_ = 0;
  std::int64_t step_ = 0;
  std::unique_ptr<Executor> executor_;
};

// Runs one combination on the first plan's device, while the other plans' devices run blocks.
Times measure(const std::vector<Plan>& plans, const TrainingOptions& training, Seconds budget,
              const std::atomic<bool>* stop) {
  ChannelNetwork network(static_cast<int>(plans.size()), {});
  Times times;
  std::barrier gate(static_cast<std::ptrdiff_t>(plans.size()));
  std::atomic<bool> done{false};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto lead = [&](Runner& runner) {
    const auto start = Clock::now();
    for (int step = 1; !done; ++step) {
      runner.step(&times);
      const double spent = std::chrono::duration<double>(Clock::now() - start).count();
      if (step >= most_steps || (step >= least_steps && spent > budget.value())) done = true;
      if (stop != nullptr && *stop) done = true;
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    threads.emplace_back([&, i] {
      bool waited = false;
      try {
        const auto transport = network.endpoint(static_cast<int>(i));
        Runner runner(plans[i], training, *transport);
        for (int step = 0; step < warm_up_steps; ++step) runner.step(nullptr);
        waited = true;
        gate.arrive_and_wait();
        if (i == 0) lead(runner);
        while (!done) runner.run_blocks();
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        done = true;
        if (!waited) gate.arrive_and_drop();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  return times;
}

// What a stage took, a layer of it: the blocks' stage has several.
std::vector<double> each(std::vector<double> times, std::int64_t layers) {
  for (double& time : times) time /= static_cast<double>(layers);
  return times;
}

LayerSample sample_of(const Times& times, int stage, const Plan& plan) {
  const StageLayout layout = lay_out_stage(stage_spec(plan, static_cast<std::size_t>(stage)), true);
  const LayerRange range = plan.stages[static_cast<std::size_t>(stage)].layers;
  const std::int64_t layers = range.last - range.first;
  LayerSample sample;
  sample.microbatch = plan.batch.microbatch;
  sample.forward = measured(each(times.forward[stage], layers));
  sample.backward_input = measured(each(times.backward_input[stage], layers));
  sample.backward_weight = measured(each(times.backward_weight[stage], layers));
  if (layout.layers.front().recomputed) {
    // The input gradient began with the repeated forward.
    sample.recompute = sample.forward;
    const auto less = [](Seconds a, Seconds b) { return std::max(a - b, Seconds(0)); };
    Measured& input = sample.backward_input;
    input = {less(input.median, sample.forward.median), less(input.low, sample.forward.median),
             less(input.high, sample.forward.median), input.count};
  }
  sample.stash = Bytes(static_cast<double>(layer_stash_bytes(layout, 0)));
  sample.workspace = Bytes(static_cast<double>(layer_workspace_bytes(layout, 0)));
  return sample;
}

// One LayerProfile a kind of layer and recompute mode.
void measure_layers(const Network& network, const ProfileOptions& options, const ProfileConditions& conditions,
                    const Cluster& cluster, Profile& profile, const ProfileProgress& progress) {
  TrainingOptions training;
  training.backend = Backend::cuda;
  training.algorithm_cache = conditions.algorithm_cache;
  // The slices of one GPU; whole GPUs do not disturb each other.
  const DeviceType& type = cluster.device_types.front();
  const int together =
      conditions.busy_neighbours && type.is_slice() ? type.gpu_multiprocessors / type.multiprocessors : 1;
  const auto devices = std::min<std::size_t>(static_cast<std::size_t>(together), cluster.devices.size());
  const int total = static_cast<int>(options.recompute.size() * options.microbatches.size());
  const LayerId ids[] = {0, 1, static_cast<LayerId>(network.transformer->layers + 1)};
  int done = 0;
  for (const Recompute recompute : options.recompute) {
    std::vector<LayerProfile> kinds(stages);
    std::vector<double> optimizer;
    for (const std::int64_t microbatch : options.microbatches) {
      if (progress) progress(done++, total, fmt::format("micro-batch {}, recompute {}", microbatch, name(recompute)));
      std::vector<Plan> plans;
      for (std::size_t i = 0; i < devices; ++i) {
        plans.push_back(measured_plan(network, options, conditions, cluster, DeviceId{static_cast<std::int32_t>(i)},
                                      microbatch, recompute));
      }
      check_runnable(plans.front());
      const Times times = measure(plans, training, options.time_budget / total, options.stop);
      if (options.stop != nullptr && *options.stop) throw device_error("interrupted");
      for (int s = 0; s < stages; ++s)
        kinds[static_cast<std::size_t>(s)].samples.push_back(sample_of(times, s, plans.front()));
      optimizer.insert(optimizer.end(), times.optimizer.begin(), times.optimizer.end());
    }
    for (std::size_t k = 0; k < stages; ++k) {
      kinds[k].kind = network.graph[ids[k]].kind;
      kinds[k].recompute = recompute;
      kinds[k].parameters = network.graph[ids[k]].parameters;
      kinds[k].optimizer = scaled(measured(optimizer), static_cast<double>(kinds[k].parameters));
      profile.layers.push_back(std::move(kinds[k]));
    }
  }
}

// Copies from the first device to its neighbour.
void measure_links(const Cluster& cluster, Profile& profile) {
  if (cluster.devices.size() < 2) return;
  Plan plan;
  plan.cluster = cluster;
  plan.devices = {{DeviceId{0}, DeviceId{1}}};
  LinkProfile link;
  link.kind = "copy";
  for (const std::int64_t bytes : {std::int64_t{1} << 12, std::int64_t{1} << 16, std::int64_t{1} << 20,
                                   std::int64_t{1} << 22, std::int64_t{1} << 24, std::int64_t{1} << 26}) {
    const auto times = load_module().time_copies(device_place(plan, 0, 0), device_place(plan, 0, 1), bytes);
    link.samples.push_back({Bytes(static_cast<double>(bytes)), measured(times)});
  }
  link.fit = fit_link(link.samples);
  profile.links.push_back(std::move(link));
}

}  // namespace

Profile profile(const Network& network, const ProfileOptions& options, const ProfileConditions& conditions,
                const ProfileProgress& progress) {
  check_trainable(network);
  if (options.sequence < 1 || options.sequence > network.transformer->max_sequence) {
    throw bad_input("sequence: expected 1 to the network's {} positions, got {}", network.transformer->max_sequence,
                    options.sequence);
  }
  const Cluster cluster = local_gpu(conditions.cluster);
  if (cluster.device_types.size() != 1) {
    throw bad_input("'{}': its devices are not alike: profile each kind on its own", conditions.cluster);
  }
  Profile profile;
  profile.tool_version = version;
  profile.machine = machine_name();
  profile.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  profile.network = network.name;
  profile.device = cluster.device_types.front();
  profile.devices = static_cast<int>(cluster.devices.size());
  profile.sequence = options.sequence;
  profile.precision = conditions.precision;
  profile.optimizer = options.optimizer;
  measure_layers(network, options, conditions, cluster, profile, progress);
  measure_links(cluster, profile);
  if (profile.device.is_slice() && !conditions.busy_neighbours) {
    profile.warnings.emplace_back("measured with idle neighbours: slices that work side by side are slower");
  }
  return profile;
}

}  // namespace stagecraft::cuda
