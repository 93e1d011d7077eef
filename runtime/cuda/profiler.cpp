#include "runtime/cuda/profiler.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <functional>

#include "models/cost/clock.hpp"
#include "models/cost/memory.hpp"
#include "models/network/layer_graph.hpp"
#include "models/version.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/cuda/local_gpu.hpp"
#include "runtime/cuda/requirements.hpp"
#include "runtime/cuda/short_network.hpp"
#include "runtime/cuda/sum_profiler.hpp"
#include "runtime/network_check.hpp"
#include "runtime/statistics.hpp"

namespace stagecraft::cuda {
namespace {

// The profile's kinds of layers.
constexpr std::size_t kinds = 3;
constexpr ShortStage stage_of_kind[kinds] = {embedding_stage, more_blocks_stage, head_stage};

// Per layer: an action's time less what it takes beside its layers.
std::vector<double> each(std::vector<double> times, double overhead, std::int64_t layers) {
  for (double& time : times) time = std::max(0.0, time - overhead) / static_cast<double>(layers);
  return times;
}

double median_or_zero(const std::vector<double>& times) { return measured(times).median.value(); }

// What t seconds for few and T seconds for more blocks leave for no block at all.
double intercept(const std::vector<double>& few, const std::vector<double>& more) {
  constexpr double ratio = static_cast<double>(few_blocks) / static_cast<double>(more_blocks - few_blocks);
  const double t = median_or_zero(few);
  return std::max(0.0, t - ratio * (median_or_zero(more) - t));
}

double action_overhead(const ShortTimes& times) {
  const ShortTimes::Stage &few = times.stages[few_blocks_stage], &more = times.stages[more_blocks_stage];
  return (intercept(few.forward, more.forward) + intercept(few.backward, more.backward) +
          intercept(few.backward_input, more.backward_input) + intercept(few.backward_weight, more.backward_weight)) /
         4;
}

// Seconds of an optimizer step that no parameter explains: its launch.
double optimizer_overhead(const ShortTimes& times) {
  return intercept(times.stages[few_blocks_stage].optimizer, times.stages[more_blocks_stage].optimizer);
}

// Seconds that STEP and the norm of the gradient take a parameter of a kind. The norm reads the gradient, as STEP does
// among the rest of what it touches, and both run at the speed of the memory.
double optimizer_rate(const ShortTimes& times, const Plan& plan, std::size_t kind) {
  const ParameterBytes bytes = parameter_bytes(plan.precision, plan.optimizer);
  // A tied head has no table of its own here; elsewhere it is as the embedding's.
  const bool is_tied = stage_of_kind[kind] == head_stage && plan.network.transformer->tied_head;
  const auto stage = static_cast<std::size_t>(is_tied ? embedding_stage : stage_of_kind[kind]);
  const double step = std::max(0.0, median_or_zero(times.stages[stage].optimizer) - optimizer_overhead(times));
  const auto parameters = static_cast<double>(lay_out_stage(stage_spec(plan, stage), true).owned_elements);
  return step / parameters * (1 + bytes.gradient / bytes.touched);
}

LayerSample sample_of(const ShortTimes& times, std::size_t kind, const Plan& plan, double overhead) {
  const auto stage = static_cast<std::size_t>(stage_of_kind[kind]);
  const StageLayout layout = lay_out_stage(stage_spec(plan, stage), true);
  const LayerRange range = plan.stages[stage].layers;
  const auto layer = [&](const std::vector<double>& action) {
    return measured(each(action, overhead, range.last - range.first));
  };
  const ShortTimes::Stage& took = times.stages[stage];
  LayerSample sample;
  sample.microbatch = plan.batch.microbatch;
  sample.forward = layer(took.forward);
  sample.backward_input = layer(took.backward_input);
  sample.backward_weight = layer(took.backward_weight);
  sample.backward = layer(took.backward);
  if (!took.first_backward.empty()) sample.first_backward = layer(took.first_backward);
  if (layout.layers.front().recomputed) {
    // The backward began with the repeated forward.
    sample.recompute = sample.forward;
    const Seconds repeated = sample.forward.median;
    for (Measured* time :
         {&sample.backward_input, &*sample.backward, sample.first_backward ? &*sample.first_backward : nullptr}) {
      if (time == nullptr) continue;
      for (Seconds* value : {&time->median, &time->low, &time->high}) *value = std::max(*value - repeated, Seconds(0));
    }
  }
  sample.stash = Bytes(static_cast<double>(layer_stash_bytes(layout, 0)));
  sample.split = Bytes(static_cast<double>(layer_split_bytes(layout, 0)));
  sample.workspace = Bytes(static_cast<double>(layer_workspace_bytes(layout, 0)));
  return sample;
}

// What a rank takes once a step beside its actions. The short network's several STEPs have a launch each, and the norm
// is counted by parameter (optimizer_rate).
Seconds step_overhead(const ShortTimes& times, const Plan& plan) {
  const ParameterBytes bytes = parameter_bytes(plan.precision, plan.optimizer);
  double norm = 0;
  for (const ShortTimes::Stage& stage : times.stages) {
    norm +=
        std::max(0.0, median_or_zero(stage.optimizer) - optimizer_overhead(times)) * (bytes.gradient / bytes.touched);
  }
  return Seconds(std::max(0.0, median_or_zero(times.around) - norm) + optimizer_overhead(times));
}

// What one micro-batch size gave.
struct Sized {
  Plan plan;
  ShortRuns runs;
};

// The optimizer's time of one kind of layer with so many neighbours busy.
Measured optimizer_of(const std::vector<Sized>& sizes, std::size_t kind, std::size_t level, std::int64_t parameters) {
  std::vector<double> times;
  for (const Sized& sized : sizes) {
    times.push_back(optimizer_rate(sized.runs.levels[level], sized.plan, kind) * static_cast<double>(parameters));
  }
  return measured(times);
}

// The slices of one GPU; whole GPUs do not disturb each other.
std::size_t devices_together(const Cluster& cluster, const ProfileConditions& conditions) {
  const int neighbours = conditions.busy_neighbours ? most_neighbours(cluster.device_types.front()) : 0;
  return std::min(static_cast<std::size_t>(neighbours) + 1, cluster.devices.size());
}

// Every size of micro-batch on the first device, with one neighbour after the other set to work.
std::vector<Sized> run_sizes(const Plan& base, const ProfileOptions& options, const ProfileConditions& conditions,
                             const std::function<void(std::int64_t microbatch)>& next) {
  TrainingOptions training;
  training.backend = Backend::cuda;
  training.algorithm_cache = conditions.algorithm_cache;
  const std::size_t devices = devices_together(base.cluster, conditions);
  const Seconds budget =
      options.time_budget / static_cast<double>(options.microbatches.size() * options.recompute.size());
  constexpr auto blocks = static_cast<double>(few_blocks + more_blocks);
  const double share_of_ends =
      std::clamp(blocks / static_cast<double>(base.network.transformer->layers), least_share_of_ends, 1.0);
  std::vector<Sized> sizes;
  for (const std::int64_t microbatch : options.microbatches) {
    next(microbatch);
    Plan sized = base;
    sized.batch.microbatch = microbatch;
    std::vector<Plan> plans;
    for (std::size_t i = 0; i < devices; ++i) {
      plans.push_back(short_plan(sized, DeviceId{static_cast<std::int32_t>(i)}));
    }
    check_runnable(plans.front());
    ShortRuns runs = run_short(plans, share_of_ends, static_cast<int>(devices), training, budget, options.stop);
    if (options.stop != nullptr && *options.stop) throw device_error("interrupted");
    sizes.push_back({std::move(plans.front()), std::move(runs)});
  }
  return sizes;
}

struct Condition {
  const ShortTimes& times;
  double load;  // that the clock followed
};

// All kinds of layers under one condition: `under(sized)` is what it was and gave.
template <class Under>
void add_layers(const std::vector<Sized>& sizes, const LayerGraph& graph, const LayerProfile& condition, Under under,
                Profile& profile) {
  const LayerId ids[kinds] = {0, 1, static_cast<LayerId>(num_vertices(graph) - 1)};
  for (std::size_t k = 0; k < kinds; ++k) {
    LayerProfile kind = condition;
    kind.kind = graph[ids[k]].kind;
    kind.parameters = graph[ids[k]].parameters;
    kind.optimizer = optimizer_of(sizes, k, static_cast<std::size_t>(condition.busy_neighbours), kind.parameters);
    for (const Sized& sized : sizes) {
      const auto [times, load] = under(sized);
      LayerSample sample = sample_of(times, k, sized.plan, profile.action_overhead.value());
      sample.clock = median_or_zero(times.clock);
      sample.load = load;
      kind.samples.push_back(sample);
    }
    profile.layers.push_back(std::move(kind));
  }
}

// One LayerProfile a kind of layer, recompute mode and number of busy neighbours; and one each with rests.
void measure_layers(const Network& network, const Plan& base, const ProfileOptions& options,
                    const ProfileConditions& conditions, Profile& profile, const ProfileProgress& progress) {
  const int total = static_cast<int>(options.recompute.size() * options.microbatches.size());
  int done = 0;
  for (const Recompute recompute : options.recompute) {
    Plan plan = base;
    plan.recompute = recompute;
    const std::vector<Sized> sizes = run_sizes(plan, options, conditions, [&](std::int64_t microbatch) {
      if (progress) progress(done++, total, fmt::format("micro-batch {}, recompute {}", microbatch, name(recompute)));
    });
    // Both show best where least else is going on.
    const ShortTimes& quiet = sizes.front().runs.levels.front();
    if (recompute == options.recompute.front()) {
      profile.action_overhead = Seconds(action_overhead(quiet));
      profile.step_overhead = step_overhead(quiet, sizes.front().plan);
    }
    LayerProfile condition;
    condition.recompute = recompute;
    const std::size_t levels = sizes.front().runs.levels.size();
    const auto busy = [&] { return (condition.busy_neighbours + 1) / (most_neighbours(profile.device) + 1.0); };
    for (std::size_t level = 0; level < levels; ++level) {
      condition.busy_neighbours = static_cast<int>(level);
      add_layers(
          sizes, network.graph, condition,
          [&](const Sized& sized) {
            return Condition{sized.runs.levels[level], busy()};
          },
          profile);
    }
    if (levels > 1) {
      condition.beside_forwards = true;
      add_layers(
          sizes, network.graph, condition,
          [&](const Sized& sized) {
            return Condition{sized.runs.beside_forwards, busy()};
          },
          profile);
      condition.beside_forwards = false;
    }
    for (std::size_t r = 0; r < sizes.front().runs.rested.size(); ++r) {
      condition.rest = sizes.front().runs.rested[r].rest;
      const auto rested = [&](const Sized& sized) {
        const ShortRuns::Rested& run = sized.runs.rested[r];
        return Condition{run.times, busy() * load_between_rests(run.busy, run.resting)};
      };
      add_layers(sizes, network.graph, condition, rested, profile);
    }
  }
}

// An all-reduce over two slices, which pass the GPU's memory many times. Under a ring of two, b bytes take 2 (latency +
// b / (2 B)).
void measure_sum(const Plan& base, const TrainingOptions& training, Seconds latency, Profile& profile) {
  Plan plan = base;
  Transformer& t = *plan.network.transformer;
  t.layers = 1;
  plan.network.graph = build_graph(t);
  plan.batch.microbatch = plan.batch.microbatches = 1;
  plan.batch.global = 2;
  plan.order = topological_order(plan.network.graph);
  plan.stages = {{{0, t.layers + 2}, RankId{0}, {}, {}}};
  plan.devices = {{DeviceId{0}}, {DeviceId{1}}};
  plan.schedule = make_schedule("gpipe", {1, 1, 1});
  check_runnable(plan);
  const SumTimes times = run_sums(plan, training);
  const Bytes bytes(static_cast<double>(times.bytes));
  LinkProfile sum;
  sum.kind = "sum";
  sum.samples.push_back({bytes, measured(times.seconds)});
  const Seconds copying = std::max(sum.samples.front().time.median - 2 * latency, Seconds(1e-9));
  sum.fit = {latency, bytes / copying};
  profile.links.push_back(std::move(sum));
}

// Copies from the first device to its neighbour; the last link is the one that plans take (with_measured_link).
void measure_links(const Plan& base, const ProfileConditions& conditions, Profile& profile) {
  const Cluster& cluster = base.cluster;
  if (cluster.devices.size() < 2) return;
  Plan plan;
  plan.cluster = cluster;
  plan.devices = {{DeviceId{0}, DeviceId{1}}};
  LinkProfile link;
  link.kind = "copy";
  for (const std::int64_t bytes : {std::int64_t{1} << 12, std::int64_t{1} << 16, std::int64_t{1} << 20,
                                   std::int64_t{1} << 22, std::int64_t{1} << 24, std::int64_t{1} << 26}) {
    const auto times = load_module().time_messages(device_place(plan, 0, 0), device_place(plan, 0, 1), bytes);
    link.samples.push_back({Bytes(static_cast<double>(bytes)), measured(times)});
  }
  link.fit = fit_link(link.samples);
  TrainingOptions training;
  training.backend = Backend::cuda;
  training.algorithm_cache = conditions.algorithm_cache;
  if (profile.device.is_slice()) {
    measure_sum(base, training, link.fit.latency, profile);
  } else if (load_module().has_nccl()) {
    profile.links.push_back(profile_sums(device_place(plan, 0, 0), device_place(plan, 0, 1)));
  }
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
  if (!conditions.busy_neighbours && most_neighbours(cluster.device_types.front()) == 0) {
    throw bad_input("'{}': whole GPUs have no neighbours to leave idle: expected slices, such as local-gpu:slices=4",
                    conditions.cluster);
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
  Plan base;
  base.network.name = network.name;
  base.network.transformer = network.transformer;
  base.cluster = cluster;
  base.batch.sequence = options.sequence;
  base.precision = conditions.precision;
  base.optimizer = options.optimizer;
  profile.kept_outputs = 1;
  profile.message_buffers = message_buffers;
  measure_layers(network, base, options, conditions, profile, progress);
  measure_links(base, conditions, profile);
  if (profile.device.is_slice() && !conditions.busy_neighbours) {
    profile.warnings.emplace_back("measured with idle neighbours: slices that work side by side are slower");
  }
  return profile;
}

}  // namespace stagecraft::cuda
