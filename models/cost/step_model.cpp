#include "models/cost/step_model.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "models/cost/memory.hpp"
#include "models/cost/schedule_forms.hpp"

namespace stagecraft {
namespace {

std::size_t at(Recompute recompute) { return static_cast<std::size_t>(recompute); }

// Of `layers` blocks of a rank, those that recompute.
double recomputing(const ParallelLayout& layout, double layers) {
  return layout.recompute == Recompute::none ? 0 : std::min<double>(layers, layout.recomputed_layers);
}

// What one micro-batch takes on one rank, all of its stages; seconds.
struct RankTimes {
  double compute = 0;
  double recompute = 0;
  double tensor = 0;
  double context = 0;
  double expert = 0;
  double total() const { return compute + recompute + tensor + context + expert; }
};

RankTimes rank_times(const ParallelLayout& layout, const Shard& shard, double layers, bool first, bool last) {
  const LayerShard& block = shard.block;
  const double repeated = recomputing(layout, layers);
  const std::size_t mode = at(layout.recompute);
  RankTimes times;
  times.compute = layers * (block.forward + block.backward_input + block.backward_weight);
  times.recompute = repeated * block.recompute[mode];
  times.tensor = layers * (block.tensor_forward + block.tensor_backward) + repeated * block.tensor_recompute[mode];
  times.context = layers * (block.context_forward + block.context_backward);
  times.expert = layers * (block.expert_forward + block.expert_backward);
  for (const auto& [here, layer] : {std::pair(first, &shard.embedding), std::pair(last, &shard.head)}) {
    if (!here) continue;
    times.compute += layer->forward + layer->backward_input + layer->backward_weight;
    times.tensor += layer->tensor_forward + layer->tensor_backward;
  }
  return times;
}

// Of one stage of a middle rank, for the bubble: recomputation and communication delay the input gradient.
StageWork stage_work(const ParallelLayout& layout, const Shard& shard, double layers) {
  const LayerShard& block = shard.block;
  const double repeated = recomputing(layout, layers * layout.virtual_stages) / layout.virtual_stages;
  const std::size_t mode = at(layout.recompute);
  return {layers * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward),
          layers * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward) +
              repeated * (block.recompute[mode] + block.tensor_recompute[mode]),
          layers * block.backward_weight};
}

double model_flops(const TrainingJob& job) {
  const Transformer& t = job.network;
  const double C = static_cast<double>(t.hidden);
  const double A = static_cast<double>(t.heads * t.head_size);
  const double K = static_cast<double>(t.kv_heads * t.head_size);
  const double F = static_cast<double>(t.ffn);
  const double s = static_cast<double>(job.sequence);
  const double inner = F * (t.activation == ActivationKind::swiglu ? 2 : 1);
  const double mlp = t.experts > 0 ? static_cast<double>(t.experts_per_token) : 1;
  const double block = 2 * (C * (A + 2 * K) + A * C + mlp * C * (inner + F)) + 4 * A * s;
  const double token = static_cast<double>(t.layers) * block + 2 * C * static_cast<double>(t.vocabulary);
  return 3 * token * s * static_cast<double>(job.global_batch);
}

}  // namespace

StepModel::StepModel(TrainingJob job, Machine machine)
    : job_(std::move(job)),
      machine_(std::move(machine)),
      element_(activation_bytes(job_.precision)),
      model_flops_(model_flops(job_)) {
  assert(!machine_.levels.empty());
}

std::string StepModel::refuse(const ParallelLayout& l) const {
  const Transformer& t = job_.network;
  const auto divides = [](std::int64_t divisor, std::int64_t number) { return number % divisor == 0; };
  if (std::int64_t{l.data} * l.microbatch * l.microbatches != job_.global_batch) {
    return fmt::format("data {} x micro-batch {} x micro-batches {} is not the global batch {}", l.data, l.microbatch,
                       l.microbatches, job_.global_batch);
  }
  // The first and the last stage may hold the embedding and the head alone.
  if (l.stages() > t.layers + 2) return fmt::format("{} stages for {} layers", l.stages(), t.layers);
  if (!divides(l.tensor, t.heads)) return fmt::format("tensor {} does not divide {} heads", l.tensor, t.heads);
  if (!divides(l.tensor, t.kv_heads) && !divides(t.kv_heads, l.tensor)) {
    return fmt::format("tensor {} and {} key/value heads do not divide each other", l.tensor, t.kv_heads);
  }
  if (!divides(l.tensor, t.ffn)) return fmt::format("tensor {} does not divide the MLP's width {}", l.tensor, t.ffn);
  if (l.sequence_parallel && l.tensor == 1) return "sequence parallelism needs tensor parallelism";
  if (!divides(std::int64_t{l.context} * (l.context > 1 ? 2 : 1) * (l.sequence_parallel ? l.tensor : 1),
               job_.sequence)) {
    return fmt::format("{} tokens cannot be cut for context {} and tensor {}", job_.sequence, l.context, l.tensor);
  }
  if (l.expert > 1) {
    if (t.experts == 0) return "expert parallelism needs a mixture of experts";
    if (!divides(l.expert, t.experts)) return fmt::format("expert {} does not divide {} experts", l.expert, t.experts);
    if (!divides(l.expert, std::int64_t{l.data} * l.context)) {
      return fmt::format("expert {} does not divide data x context {}", l.expert, l.data * l.context);
    }
  }
  const std::int64_t ends = std::int64_t{l.first_stage_layers} + l.last_stage_layers;
  if (l.virtual_stages > 1 && ends > 0) return "uneven ends need one stage a rank";
  if (l.pipeline == 1 && ends > 0) return "uneven ends need a pipeline";
  const std::int64_t middle = l.pipeline - (l.first_stage_layers > 0) - (l.last_stage_layers > 0);
  if (ends > 0 && (t.layers - ends < middle || (middle == 0 && t.layers != ends))) {
    return fmt::format("{} and {} layers at the ends do not fit {} layers on {} stages", l.first_stage_layers,
                       l.last_stage_layers, t.layers, l.pipeline);
  }
  if (l.zero >= 2 && l.pipeline > 1) return fmt::format("ZeRO {} gathers anew for every micro-batch", l.zero);
  return refuse_schedule(l.schedule, l.pipeline, l.virtual_stages, l.microbatches);
}

Shard StepModel::shard(const ParallelLayout& layout) const { return shard_costs(job_, machine_, layout); }

std::int64_t StepModel::layers_of(const ParallelLayout& layout, std::int32_t rank) const {
  const bool first = rank == 0;
  const bool last = rank == layout.pipeline - 1;
  if (first && layout.first_stage_layers > 0) return layout.first_stage_layers;
  if (last && layout.last_stage_layers > 0) return layout.last_stage_layers;
  const std::int64_t ranks = layout.pipeline - (layout.first_stage_layers > 0) - (layout.last_stage_layers > 0);
  const std::int64_t layers = job_.network.layers - layout.first_stage_layers - layout.last_stage_layers;
  // What is left over goes to the middle first: positions counted from the middle outwards.
  const std::int64_t position = rank - (layout.first_stage_layers > 0);
  const std::int64_t from_middle = std::abs(2 * position - (ranks - 1)) - (2 * position < ranks - 1 ? 1 : 0);
  return layers / ranks + (from_middle < layers % ranks ? 1 : 0);
}

StageMemory StepModel::memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const {
  const bool first = rank == 0;
  const bool last = rank == layout.pipeline - 1;
  const auto layers = static_cast<double>(layers_of(layout, rank));
  const LayerShard& block = shard.block;
  double dense = layers * block.parameters;
  if (first) dense += shard.embedding.parameters;
  if (last) dense += shard.head.parameters - (first && job_.network.tied_head ? shard.embedding.parameters : 0);
  const double expert = layers * block.expert_parameters;
  const double replicas = static_cast<double>(layout.data) * layout.context;
  const double expert_replicas = replicas / layout.expert;
  const ParameterBytes bytes = parameter_bytes(job_.precision, job_.optimizer);
  const auto sharded = [&](int from) {
    return layout.zero >= from ? dense / replicas + expert / expert_replicas : dense + expert;
  };
  StageMemory memory;
  const double copies = weight_copies(layout.schedule);
  memory.weights = copies * std::max(2.0, bytes.weight.value()) * sharded(3);
  memory.gradients = copies * machine_.framework.gradient_bytes * sharded(2);
  memory.optimizer_state = layout.offload_optimizer ? 0 : bytes.optimizer_state.value() * sharded(1);
  // Gathered weights of the block at hand and of the next.
  if (layout.zero == 3)
    memory.workspace += 2 * std::max(2.0, bytes.weight.value()) * (block.parameters + block.expert_parameters);

  const double in_flight =
      stages_in_flight(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, rank) /
      layout.virtual_stages;
  const double repeated = recomputing(layout, layers);
  const double kept = repeated * block.stash[at(layout.recompute)] + (layers - repeated) * block.stash[0];
  double activations = in_flight * (kept + (first ? shard.embedding.stash[0] : 0));
  if (layout.offload_activations) activations = std::min(activations, 2 * (kept / std::max(1.0, layers)));
  if (last) activations += shard.head.stash[0];
  const double brought_back = repeated > 0 ? block.stash[0] - block.stash[at(layout.recompute)] : 0;
  memory.workspace += std::max(brought_back + block.workspace, last ? shard.head.workspace : 0);
  memory.activations = activations * (1 + machine_.framework.fragmentation);
  memory.reserved = machine_.framework.reserved_bytes;
  return memory;
}

// Reductions of gradients and gathers of parameters, once a step (every micro-batch with ZeRO 3), as far as they show.
// `backward` and `forward` are the last and first micro-batch's on this rank: what overlapped communication hides
// behind.
double StepModel::data_time(const ParallelLayout& layout, double parameters, double expert_parameters, double backward,
                            double forward) const {
  const auto inner = static_cast<double>(inner_devices(layout, Dimension::data));
  const double context = layout.context;  // gradients are summed over it as well
  const GroupShape group =
      group_of(machine_, inner / (layout.order == megatron_order ? context : 1), layout.data * context);
  const GroupShape experts = group_of(machine_, inner, group.members / layout.expert);
  const FrameworkConstants& framework = machine_.framework;
  const double gradients = framework.reduced_bytes * parameters;
  const double expert_gradients = framework.reduced_bytes * expert_parameters;
  const auto shown = [&](double time, bool overlaps, double behind) {
    return overlaps ? std::max(framework.exposed_gradients * time, time - behind) : time;
  };
  // In buckets: each but the first pays start and latency once more.
  const auto in_buckets = [&](auto collective, const GroupShape& members, double bytes) {
    const double buckets = std::ceil(bytes / framework.bucket_bytes);
    return buckets > 1 ? buckets * collective(machine_, members, bytes / buckets)
                       : collective(machine_, members, bytes);
  };
  if (layout.zero == 0) {
    const double reduce =
        in_buckets(all_reduce_time, group, gradients) + in_buckets(all_reduce_time, experts, expert_gradients);
    return shown(reduce, layout.overlap_gradients, backward);
  }
  const double reduce =
      in_buckets(reduce_scatter_time, group, gradients) + in_buckets(reduce_scatter_time, experts, expert_gradients);
  const double gather = in_buckets(all_gather_time, group, element_ * parameters) +
                        in_buckets(all_gather_time, experts, element_ * expert_parameters);
  if (layout.zero < 3) {
    return shown(reduce, layout.overlap_gradients, backward) + shown(gather, layout.overlap_parameters, forward);
  }
  const double times = layout.microbatches;
  return times * (shown(reduce + gather, layout.overlap_gradients, backward) +
                  shown(gather, layout.overlap_parameters, forward));
}

StepEstimate StepModel::estimate(const ParallelLayout& layout, const Shard& shard) const {
  const std::int32_t P = layout.pipeline;
  const double V = layout.virtual_stages;
  const double M = layout.microbatches;
  const std::int32_t middle = P / 2;
  const auto layers_on = [&](std::int32_t rank) { return static_cast<double>(layers_of(layout, rank)); };
  const RankTimes first = rank_times(layout, shard, layers_on(0), true, P == 1);
  const RankTimes last = rank_times(layout, shard, layers_on(P - 1), P == 1, true);
  const RankTimes inside = P > 2 ? rank_times(layout, shard, layers_on(middle), false, false) : first;
  const RankTimes* slowest = &first;
  for (const RankTimes* rank : {&inside, &last}) {
    if (rank->total() > slowest->total()) slowest = rank;
  }

  StepEstimate estimate;
  StepTerms& terms = estimate.terms;
  terms.compute = M * slowest->compute;
  terms.recompute = M * slowest->recompute;
  terms.tensor = M * slowest->tensor;
  terms.context = M * slowest->context;
  terms.expert = M * slowest->expert;
  if (P > 1) {
    // Closed form for equal stages of the mean length, plus what a micro-batch's way through the ends is longer.
    const double mean = static_cast<double>(job_.network.layers) / static_cast<double>(layout.stages());
    const StageWork work = stage_work(layout, shard, mean);
    const double one = bubble_time(layout.schedule, P, layout.virtual_stages, layout.microbatches, work);
    const double pass = work.total() * P * V;
    const double ends =
        first.total() + last.total() - 2 * layers_on(0) / static_cast<double>(job_.network.layers) * pass;
    terms.bubble = one + std::max(0.0, ends - (slowest->total() - work.total() * V)) / V;
    const double message =
        message_time(machine_, static_cast<double>(inner_devices(layout, Dimension::pipeline)), shard.boundary);
    const double shown = layout.overlap_pipeline ? machine_.framework.exposed_pipeline : 1;
    terms.pipeline = message * (messages_in_latency(P, 1) + 2 * M * V * shown);
  }

  const ParameterBytes bytes = parameter_bytes(job_.precision, job_.optimizer);
  const LayerShard& block = shard.block;
  const double heaviest = layers_on(P > 2 ? middle : 0);
  const double ends = P == 1 ? shard.embedding.parameters + (job_.network.tied_head ? 0 : shard.head.parameters)
                             : shard.embedding.parameters;
  const double dense = std::max(heaviest * block.parameters, layers_on(0) * block.parameters + ends);
  const double expert = heaviest * block.expert_parameters;
  terms.data = data_time(layout, dense, expert, inside.total() * 2 / 3, inside.total() / 3);
  if (P > 1 && job_.network.tied_head) {
    const GroupShape pair =
        group_of(machine_, static_cast<double>(inner_devices(layout, Dimension::pipeline)) * (P - 1), 2);
    terms.data +=
        stagecraft::all_reduce_time(machine_, pair, machine_.framework.reduced_bytes * shard.embedding.parameters);
  }
  const double replicas = layout.zero > 0 ? static_cast<double>(layout.data) * layout.context : 1;
  const double updated = dense / replicas + expert / std::max(1.0, replicas / layout.expert);
  const double host_bandwidth = 25e9;
  terms.optimizer = layout.offload_optimizer
                        ? updated * 8 / host_bandwidth
                        : machine_.framework.optimizer * updated * bytes.touched.value() /
                              (machine_.device.memory_bandwidth.value() * machine_.constants.memory);
  terms.other = machine_.framework.step_s + M * machine_.framework.microbatch_s;

  const double nodes = static_cast<double>(layout.devices()) / machine_.levels.front().devices;
  if (nodes > 1) terms.other += terms.total() * machine_.framework.straggling * std::log2(nodes);
  estimate.time = Seconds(terms.total());

  double most = -1;
  for (const std::int32_t rank : {0, 1, middle, P - 1}) {
    if (rank >= P) continue;
    const StageMemory needed = memory(layout, shard, rank);
    if (needed.total() <= most) continue;
    most = needed.total();
    estimate.memory = needed;
    estimate.worst_rank = rank;
  }
  estimate.fits = most <= machine_.device.memory.value();
  return estimate;
}

Seconds StepModel::lower_bound(const ParallelLayout& layout, const Shard& shard) const {
  const LayerShard& block = shard.block;
  const double layers = static_cast<double>(job_.network.layers) / layout.pipeline;
  const std::size_t mode = at(layout.recompute);
  const double repeated = recomputing(layout, layers);
  return Seconds(layout.microbatches * (layers * (block.forward + block.backward_input + block.backward_weight) +
                                        repeated * block.recompute[mode]));
}

double StepModel::mfu(Seconds time, std::int64_t devices) const {
  const DataType type = job_.precision;
  return model_flops_ / (time.value() * static_cast<double>(devices) * machine_.device.peak_of(type).value());
}

}  // namespace stagecraft
