#include "models/cost/step_model.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <tuple>

#include "models/cost/layer_split.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// What one micro-batch takes on one rank, all of its stages; seconds.
struct RankTimes {
  double compute = 0;
  double recompute = 0;
  double tensor = 0;
  double context = 0;
  double expert = 0;
  double total() const { return compute + recompute + tensor + context + expert; }
};

RankTimes rank_times(const ParallelLayout& layout, const Shard& shard, const RankBlocks& blocks, bool first,
                     bool last) {
  const auto [layers, repeated, dense] = blocks;
  const MeanBlock mean(shard, layers, dense);
  const LayerShard& block = *mean;
  const std::size_t mode = index(layout.recompute);
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

double whole_time(const LayerShard& layer) {
  return layer.forward + layer.backward_input + layer.backward_weight + layer.tensor_forward + layer.tensor_backward;
}

// Of one stage of the mean length, for the bubble: recomputation and communication delay the input gradient.
// `repeated`: of its blocks, those that recompute.
StageWork stage_work(const ParallelLayout& layout, const Shard& shard, double layers, double repeated) {
  const LayerShard& block = shard.mean_block;
  const std::size_t mode = index(layout.recompute);
  return {layers * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward),
          layers * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward) +
              repeated * (block.recompute[mode] + block.tensor_recompute[mode]),
          layers * block.backward_weight};
}

// A micro-batch's activations go to the host behind the computation of its forward and come back behind that of its
// backward, which takes twice as long; what shows of that.
double offload_time(const ParallelLayout& layout, const Shard& shard, double layers, double microbatch,
                    double host_bandwidth) {
  if (!layout.offload_activations) return 0;
  const double repeated = recomputing(layout, layers);
  const LayerShard& block = shard.mean_block;
  const double kept =
      repeated * block.stash[static_cast<std::size_t>(layout.recompute)] + (layers - repeated) * block.stash[0];
  const double transfer = kept / host_bandwidth;
  return std::max(0.0, transfer - microbatch / 3) + std::max(0.0, transfer - microbatch * 2 / 3);
}

// Operations of a block's forward for a token.
double block_flops(const Transformer& t, double s) {
  const double C = static_cast<double>(t.hidden);
  const double A = static_cast<double>(t.heads * t.head_size);
  const double K = static_cast<double>(t.kv_heads * t.head_size);
  const double F = static_cast<double>(t.ffn);
  const double inner = F * (t.activation == ActivationKind::swiglu ? 2 : 1);
  const double mlp = t.experts > 0 ? static_cast<double>(t.experts_per_token + t.shared_experts) : 1;
  double attention = C * (A + 2 * K) + A * C;
  double pairs = 2 * A;
  if (const auto& latent = t.latent) {
    const auto Q = static_cast<double>(latent->query_rank), R = static_cast<double>(latent->kv_rank);
    const auto O = static_cast<double>(t.heads * latent->value_head_size);
    const auto nope = static_cast<double>(t.heads * latent->nope_head_size);
    attention =
        (Q > 0 ? Q * (C + A) : C * A) + C * (R + static_cast<double>(latent->rope_head_size)) + R * (nope + O) + O * C;
    pairs = A + O;
  }
  return 2 * (attention + mlp * C * (inner + F)) + 2 * pairs * s;
}

double model_flops(const TrainingJob& job) {
  const Transformer& t = job.network;
  const double s = static_cast<double>(job.sequence);
  const auto dense = static_cast<double>(t.dense_layers);
  double token = (static_cast<double>(t.layers) - dense) * block_flops(t, s) +
                 2 * static_cast<double>(t.hidden) * static_cast<double>(t.vocabulary);
  if (dense > 0) token += dense * block_flops(dense_variant(t), s);
  return 3 * token * s * static_cast<double>(job.global_batch);
}

}  // namespace

StepModel::StepModel(TrainingJob job, Machine machine)
    : job_(std::move(job)),
      machine_(std::move(machine)),
      element_(activation_bytes(job_.precision)),
      parameter_bytes_(parameter_bytes(job_.precision, job_.optimizer)),
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
  if (l.stages() > t.layers + 2)
    return fmt::format("{} for {}", counted(l.stages(), "stage"), counted(t.layers, "layer"));
  if (!divides(l.tensor, t.heads))
    return fmt::format("tensor {} does not divide {}", l.tensor, counted(t.heads, "head"));
  if (!divides(l.tensor, t.kv_heads) && !divides(t.kv_heads, l.tensor)) {
    return fmt::format("tensor {} and {} do not divide each other", l.tensor, counted(t.kv_heads, "key/value head"));
  }
  for (const std::int64_t width : {t.ffn, t.dense_ffn}) {
    if (!divides(l.tensor, width)) return fmt::format("tensor {} does not divide the MLP's width {}", l.tensor, width);
  }
  if (l.sequence_parallel && l.tensor == 1) return "sequence parallelism needs tensor parallelism";
  if (!divides(std::int64_t{l.context} * (l.context > 1 ? 2 : 1) * (l.sequence_parallel ? l.tensor : 1),
               job_.sequence)) {
    return fmt::format("{} cannot be cut for context {} and tensor {}", counted(job_.sequence, "token"), l.context,
                       l.tensor);
  }
  if (l.expert > 1) {
    if (t.experts == 0) return "expert parallelism needs a mixture of experts";
    if (!divides(l.expert, t.experts))
      return fmt::format("expert {} does not divide {}", l.expert, counted(t.experts, "expert"));
    const std::int64_t replicas = std::int64_t{l.data} * l.context;
    if (folds_experts(l)) {
      if (!divides(l.expert, expert_devices(l))) {
        return fmt::format("expert {} divides neither data x context {} nor tensor x data x context {}", l.expert,
                           replicas, expert_devices(l));
      }
      if (!l.sequence_parallel) {
        return fmt::format(
            "expert {} does not divide data x context {}: over tensor x data x context experts need "
            "sequence parallelism",
            l.expert, replicas);
      }
      if (replicas == 1 && l.expert != l.tensor) {
        return fmt::format("expert {} is not all of the {} tensor-parallel devices of a single replica", l.expert,
                           l.tensor);
      }
    }
  }
  if (t.dense_layers > 0 && weight_copies(l.schedule) > 1) {
    return fmt::format(
        "{} has each stage on two ranks: not for networks with leading dense layers, whose stages are unlike",
        name(l.schedule));
  }
  const bool uneven = l.first_stage_layers != 0 || l.last_stage_layers != 0;
  if (l.virtual_stages > 1 && uneven) return "uneven ends need one stage a rank";
  if (l.pipeline == 1 && uneven) return "uneven ends need a pipeline";
  if (!job_.stage_blocks.empty()) {
    const auto& blocks = job_.stage_blocks;
    if (std::ssize(blocks) != l.stages()) {
      return fmt::format("blocks of {} placed by hand for {}", counted(std::ssize(blocks), "stage"), l.stages());
    }
    if (std::accumulate(blocks.begin(), blocks.end(), std::int64_t{0}) != t.layers) {
      return fmt::format("the blocks placed by hand are not {}", t.layers);
    }
  } else if (uneven && !LayerSplit(l, job_).adds_up()) {
    return fmt::format("{} and {} at the ends do not fit {} on {}", l.first_stage_layers,
                       counted(l.last_stage_layers, "layer"), counted(t.layers, "layer"), counted(l.pipeline, "stage"));
  }
  if (l.recomputed_layers == listed_layers && std::ssize(job_.recomputed_blocks) != l.pipeline) {
    return fmt::format("numbers of blocks that recompute for {} on a pipeline of {}",
                       counted(std::ssize(job_.recomputed_blocks), "rank"), l.pipeline);
  }
  if (l.recomputed_layers < 0 && l.offload_activations) {
    return "offloaded activations go with no recomputation or with that of a number of blocks";
  }
  return refuse_schedule(l.schedule, l.pipeline, l.virtual_stages, l.microbatches);
}

Shard StepModel::shard(const ParallelLayout& layout) const { return shard_costs(job_, machine_, layout); }

std::int64_t StepModel::layers_of(const ParallelLayout& layout, std::int32_t rank) const {
  return LayerSplit(layout, job_).layers(rank);
}

std::int64_t StepModel::dense_layers_of(const ParallelLayout& layout, std::int32_t rank) const {
  return job_.network.dense_layers > 0 ? LayerSplit(layout, job_).dense_layers(rank) : 0;
}

// Reductions of gradients and gathers of parameters: once a step, and from ZeRO 2 or 3 on for every micro-batch but
// where a schedule or a framework has them once (when_exchanged).
ReplicaTime StepModel::replica_time(const ParallelLayout& layout, double parameters, double expert_parameters,
                                    double forward, double backward) const {
  const double replicas = static_cast<double>(layout.data) * layout.context;
  ReplicaTime times;
  if (replicas == 1) return times;  // and a single one of each expert: refuse()
  const ReplicaGroups groups = replica_groups(machine_, layout);
  const FrameworkConstants& framework = machine_.framework;
  const auto shown = [&](double time, bool overlaps, double behind) {
    return overlaps ? std::max(framework.exposed_gradients * time, time - behind) : time;
  };
  // In buckets: each but the first pays start and latency once more. `parts` of the parameters at a time.
  const auto in_buckets = [&](auto collective, double bytes_a_parameter, double parts) {
    double time = 0;
    for (const auto& [count, members] :
         {std::pair(parameters, &groups.replicas), std::pair(expert_parameters, &groups.alike)}) {
      const double bytes = bytes_a_parameter * count / parts;
      const double buckets = std::max(1.0, std::ceil(bytes / framework.bucket_bytes));
      time += buckets * collective(machine_, *members, bytes / buckets);
    }
    return time;
  };
  if (layout.zero == 0) {
    times.once = shown(in_buckets(all_reduce_time, framework.reduced_bytes, 1), layout.overlap_gradients, backward);
    return times;
  }
  const ReplicaExchange exchange = when_exchanged(layout, framework);
  const double V = layout.virtual_stages;
  const auto reduce = [&](double parts) { return in_buckets(reduce_scatter_time, framework.reduced_bytes, parts); };
  const auto gather = [&](double parts) { return in_buckets(all_gather_time, element_, parts); };
  const bool reduces = layout.overlap_gradients, gathers = layout.overlap_parameters;
  // ZeRO 3 gathers before the forward and again before the backward.
  if (exchange.gathers_each && exchange.reduces_each) {
    times.forward = shown(gather(V), gathers, forward / V);
    times.backward = shown(reduce(V) + gather(V), reduces, backward / V);
  } else if (exchange.gathers_each) {
    times.backward = shown(gather(V), gathers, forward / V);
    times.once = shown(reduce(1), reduces, backward);
  } else if (exchange.reduces_each) {
    times.backward = shown(reduce(V), reduces, backward / V);
    times.once = shown(gather(1), gathers, forward);
  } else {
    times.once =
        shown(reduce(1) + (layout.zero == 3 ? gather(1) : 0), reduces, backward) + shown(gather(1), gathers, forward);
  }
  return times;
}

// What the pipeline's fill and drain wait for exchanges of every micro-batch, those of stages of the mean length.
double StepModel::replica_bubble(const ParallelLayout& layout, const Shard& shard, Waiting waiting) const {
  const LayerShard& block = shard.mean_block;
  const double blocks = static_cast<double>(job_.network.layers) / layout.pipeline;
  const auto [before, after] = covering(block, blocks);
  const ReplicaTime each =
      replica_time(layout, blocks * block.parameters, blocks * block.expert_parameters, before, after);
  // A longer forward shortens the form of zb-v, which is exact for enough micro-batches only.
  const double forward = layout.schedule == PipelineSchedule::zb_v ? 0 : each.forward;
  return bubble(layout, {forward, each.backward, 0}, waiting);
}

// The optimizer's traffic, or with its state in host memory that of gradients out and weights back.
double StepModel::optimizer_time(const ParallelLayout& layout, double parameters, double expert_parameters) const {
  const double replicas = layout.zero > 0 ? static_cast<double>(layout.data) * layout.context : 1;
  double updated = parameters / replicas;
  if (expert_parameters > 0) {
    const double alike = layout.zero > 0 ? static_cast<double>(expert_devices(layout)) / layout.expert : 1;
    updated += expert_parameters / alike;
  }
  if (layout.offload_optimizer) {
    // Copies run behind the update, or it behind them.
    const double copied = machine_.framework.gradient_bytes + element_;
    return updated * std::max(copied / machine_.constants.host_bandwidth,
                              parameter_bytes_.touched.value() / machine_.constants.host_memory);
  }
  return machine_.framework.optimizer * updated * parameter_bytes_.touched.value() /
         (machine_.device.memory_bandwidth.value() * machine_.constants.memory);
}

double StepModel::bubble(const ParallelLayout& layout, const StageWork& stage, Waiting waiting) const {
  if (is_timed(layout.schedule) && waiting == Waiting::counted) {
    return times_->bubble(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, stage);
  }
  return bubble_time(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, stage);
}

// What the pipeline adds to the slowest rank's work: waiting, and messages. The bubble is the closed form for equal
// stages of the mean length, lengthened by what a micro-batch's way through embedding and head takes beyond the slowest
// rank's excess over the mean: for 1f1b, the sum over the ranks less the slowest. `repeated`: blocks that recompute on
// the mean rank.
void StepModel::add_pipeline(const ParallelLayout& layout, const Shard& shard, double repeated, double slowest,
                             Waiting waiting, StepTerms& terms) const {
  const double V = layout.virtual_stages;
  const double blocks = static_cast<double>(job_.network.layers) / static_cast<double>(layout.stages());
  const StageWork work = stage_work(layout, shard, blocks, repeated / V);
  const double excess = slowest - work.total() * V;
  terms.bubble =
      bubble(layout, work, waiting) + std::max(0.0, whole_time(shard.embedding) + whole_time(shard.head) - excess) / V;
  const auto stride = static_cast<double>(inner_devices(layout, Dimension::pipeline));
  const double shown = layout.overlap_pipeline ? machine_.framework.exposed_pipeline : 1;
  terms.pipeline = message_time(machine_, stride, stride * layout.pipeline, shard.boundary) *
                   (messages_in_latency(layout.pipeline, 1) + 2 * V * layout.microbatches * shown);
}

std::pair<double, double> StepModel::most_parameters(const LayerSplit& split, const ParallelLayout& layout,
                                                     const Shard& shard) const {
  const std::int32_t last = layout.pipeline - 1;
  const double head = last > 0 || job_.network.tied_head ? 0 : shard.head.parameters;
  double dense = 0, expert = 0;
  if (job_.network.dense_layers > 0) {
    for (std::int32_t rank = 0; rank <= last; ++rank) {
      const double layers = split.layers(rank);
      const MeanBlock mean(shard, layers, split.dense_layers(rank));
      dense = std::max(dense, layers * mean->parameters + (rank == 0 ? shard.embedding.parameters + head : 0));
      expert = std::max(expert, layers * mean->expert_parameters);
    }
    return {dense, expert};
  }
  const std::int32_t middle = last > 1 ? split.fullest_inside() : layout.pipeline / 2;
  const double on_first = split.layers(0);
  const double on_most =
      std::max({on_first, static_cast<double>(split.layers(middle)), static_cast<double>(split.layers(last))});
  const LayerShard& block = shard.block;
  return {std::max(on_most * block.parameters, on_first * block.parameters + shard.embedding.parameters + head),
          on_most * block.expert_parameters};
}

StepTerms StepModel::terms(const ParallelLayout& layout, const Shard& shard, const Ranks& ranks,
                           Waiting waiting) const {
  const std::int32_t P = layout.pipeline;
  const double M = layout.microbatches;
  const LayerSplit& split = ranks.split;
  const std::int32_t middle = P > 2 ? split.fullest_inside() : P / 2;
  const auto on_first = static_cast<double>(split.layers(0));
  const auto on_middle = static_cast<double>(split.layers(middle));
  const bool by_rank = !ranks.unlike.empty();
  double repeated = 0;  // blocks of all ranks, where they differ
  // Whose work what replicas exchange hides behind: of two ranks the one with more blocks.
  const std::int32_t hiding = P > 2 || on_middle > on_first ? middle : 0;
  RankTimes slowest, inside;
  const auto add_rank = [&](std::int32_t rank) {
    const RankBlocks blocks = ranks.blocks(rank);
    repeated += blocks.repeated;
    const RankTimes times = rank_times(layout, shard, blocks, rank == 0, rank == P - 1);
    if (rank == 0 || times.total() > slowest.total()) slowest = times;
    if (rank == hiding) inside = times;
  };
  if (by_rank) {
    for (std::int32_t rank = 0; rank < P; ++rank) add_rank(rank);
  } else {
    add_rank(0);
    if (P > 2) add_rank(middle);
    if (P > 1) add_rank(P - 1);
  }
  StepTerms terms{.compute = M * slowest.compute,
                  .recompute = M * slowest.recompute,
                  .tensor = M * slowest.tensor,
                  .context = M * slowest.context,
                  .expert = M * slowest.expert};
  if (P > 1) {
    const double mean = static_cast<double>(job_.network.layers) / P;
    add_pipeline(layout, shard, by_rank ? repeated / P : recomputing(layout, mean), slowest.total(), waiting, terms);
  }

  const auto [dense, expert] = most_parameters(split, layout, shard);
  double forward = inside.total() / 3, backward = inside.total() * 2 / 3;
  if (P > 1 && layout.zero >= 2) {
    const double layers = split.layers(hiding);
    const MeanBlock mean(shard, layers, ranks.blocks(hiding).dense);
    std::tie(forward, backward) = covering(*mean, layers);
  }
  const ReplicaTime replicas = replica_time(layout, dense, expert, forward, backward);
  terms.data_once = replicas.once;
  if (P > 1 && job_.network.tied_head) {
    const double apart = static_cast<double>(inner_devices(layout, Dimension::pipeline)) * (P - 1);
    terms.data_once += all_reduce_time(machine_, group_of(machine_, apart, 2),
                                       machine_.framework.reduced_bytes * shard.embedding.parameters);
  }
  terms.data = terms.data_once;
  if (const double each = replicas.forward + replicas.backward; each > 0) {
    terms.data += M * layout.virtual_stages * each + (P > 1 ? replica_bubble(layout, shard, waiting) : 0);
  }
  terms.optimizer = optimizer_time(layout, dense, expert);
  terms.other = machine_.framework.step_s + M * machine_.framework.microbatch_s;
  terms.other += M * offload_time(layout, shard, std::max(on_first, on_middle), inside.compute + inside.recompute,
                                  machine_.constants.host_bandwidth);
  const double nodes = static_cast<double>(layout.devices()) / machine_.levels.front().devices;
  if (nodes > 1 && machine_.framework.straggling > 0) {
    terms.other += terms.total() * machine_.framework.straggling * std::log2(nodes);
  }
  return terms;
}

StepEstimate StepModel::estimate(const ParallelLayout& layout, const Shard& shard, Waiting waiting) const {
  Ranks ranks{layout, LayerSplit(layout, job_), {}};
  const bool has_dense = job_.network.dense_layers > 0;
  if (ranks.split.is_by_hand() || has_dense || (layout.recomputed_layers < 0 && layout.recompute != Recompute::none)) {
    ranks.unlike.reserve(static_cast<std::size_t>(layout.pipeline));
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
      const std::int32_t layers = ranks.split.layers(rank);
      const double dense = has_dense ? ranks.split.dense_layers(rank) : 0;
      const auto repeated = static_cast<double>(recomputed_of(layout, shard, rank, layers, dense));
      ranks.unlike.push_back({static_cast<double>(layers), repeated, dense});
    }
  }
  StepEstimate estimate;
  estimate.terms = terms(layout, shard, ranks, waiting);
  estimate.time = Seconds(estimate.terms.total());
  find_fullest(layout, shard, ranks, estimate);
  return estimate;
}

StepEstimate StepModel::estimate(const ParallelLayout& layout, const Shard& shard) const {
  return estimate(layout, shard, Waiting::counted);
}

StepEstimate StepModel::least_estimate(const ParallelLayout& layout, const Shard& shard) const {
  return estimate(layout, shard, Waiting::of_forms);
}

double StepModel::mfu(Seconds time, std::int64_t devices) const {
  const DataType type = job_.precision;
  return model_flops_ / (time.value() * static_cast<double>(devices) * machine_.device.peak_of(type).value());
}

}  // namespace stagecraft
