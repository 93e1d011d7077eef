#include "models/cost/shard.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace stagecraft {
namespace {

constexpr auto none = static_cast<std::size_t>(Recompute::none);
constexpr auto selective = static_cast<std::size_t>(Recompute::selective);
constexpr auto full = static_cast<std::size_t>(Recompute::full);

// The sizes that everything is made of. Letters as in docs/cost_model.md.
struct Sizes {
  Sizes(const TrainingJob& job, const ParallelLayout& layout)
      : t(layout.tensor),
        T(static_cast<double>(layout.microbatch) * static_cast<double>(job.sequence) / layout.context),
        s(static_cast<double>(job.sequence)),
        C(static_cast<double>(job.network.hidden)),
        A(static_cast<double>(job.network.heads * job.network.head_size) / t),
        K(static_cast<double>(job.network.head_size) * std::max(1.0, static_cast<double>(job.network.kv_heads) / t)),
        O(static_cast<double>(job.network.heads *
                              (job.network.latent ? job.network.latent->value_head_size : job.network.head_size)) /
          t),
        h(static_cast<double>(job.network.heads) / t),
        F(static_cast<double>(job.network.ffn) / t),
        inner(F * (job.network.activation == ActivationKind::swiglu ? 2 : 1)),
        V(std::ceil(static_cast<double>(job.network.vocabulary) / t)),
        experts(static_cast<double>(job.network.experts)),
        chosen(static_cast<double>(job.network.experts_per_token)),
        shared(static_cast<double>(job.network.shared_experts)),
        folded(job.network.experts > 0 && folds_experts(layout) ? t : 1.0),
        replicated(layout.sequence_parallel ? 1.0 / t : 1.0),
        element(activation_bytes(job.precision)) {
    if (const auto& latent = job.network.latent) {
      Q = static_cast<double>(latent->query_rank);
      R = static_cast<double>(latent->kv_rank);
      rope = static_cast<double>(latent->rope_head_size);
      nope = static_cast<double>(job.network.heads * latent->nope_head_size) / t;
    }
  }
  // What the products that are cut by heads read of a token before they are gathered.
  double attention_input() const { return R > 0 ? (Q > 0 ? Q : C) + R + rope : C; }
  double values() const { return R > 0 ? O : K; }
  double t;        // tensor-parallel devices
  double T;        // tokens of a micro-batch on this device
  double s;        // tokens of a sample
  double C;        // width of the residual stream
  double A, K, O;  // queries, keys (or values, without latent attention), attention's outputs on this device
  double h;        // heads on this device
  // Latent attention: ranks of queries and of keys and values; a key's part with position, those without of all heads
  // on this device.
  double Q = 0, R = 0, rope = 0, nope = 0;
  double F, inner;  // MLP: input of its second product, output of its first
  double V;         // vocabulary on this device
  double experts, chosen, shared;
  double folded;      // tensor-parallel devices that each have experts of their own, for a share of the tokens each
  double replicated;  // share of what sequence parallelism shards
  double element;     // bytes of an activation
};

bool pipeline_leaves_node(const Machine& machine, const ParallelLayout& layout) {
  const double stride = static_cast<double>(inner_devices(layout, Dimension::pipeline));
  return layout.pipeline > 1 && stride * layout.pipeline > machine.levels.front().devices;
}

class ShardCosts {
 public:
  ShardCosts(const TrainingJob& job, const Machine& machine, const ParallelLayout& layout)
      : job_(job),
        machine_(machine),
        layout_(layout),
        z_(job, layout),
        peak_(product_peak(job, machine)),
        memory_rate_(machine.device.memory_bandwidth.value() * machine.constants.memory) {}

  LayerShard block() const;
  LayerShard embedding() const;
  LayerShard head() const;

 private:
  double product(double m, double n, double k) const {
    return machine_.framework.product * matmul_time(machine_, peak_, m, n, k, z_.element);
  }
  // Adds y = x w for `m` rows, `count` times over (experts).
  void add_product(LayerShard& layer, double m, double n, double k, double count = 1) const {
    layer.forward += count * product(m, n, k);
    layer.backward_input += count * product(m, k, n);
    layer.backward_weight += count * product(k, n, m);
  }
  double moving(double elements) const { return elements * z_.element / memory_rate_; }
  void add_projections(LayerShard& layer) const;
  void add_attention(LayerShard& layer) const;
  void add_elementwise(LayerShard& layer) const;
  void add_mlp(LayerShard& layer) const;
  void add_tensor_communication(LayerShard& layer) const;
  void add_context_communication(LayerShard& layer) const;
  void add_expert_communication(LayerShard& layer) const;
  void wait_for_host(LayerShard& layer) const;
  void add_recomputation(LayerShard& layer) const;
  void add_stash(LayerShard& layer) const;
  void count_parameters(LayerShard& layer) const;
  // The products of queries with keys and of probabilities with values, forward.
  double attention_forward() const;
  // Softmax, its scaling, masking and dropout on the whole square of scores, forward; none in a fused kernel.
  double scores_moved() const;
  GroupShape group(Dimension dimension, double members) const {
    return group_of(machine_, static_cast<double>(inner_devices(layout_, dimension)), members);
  }

  const TrainingJob& job_;
  const Machine& machine_;
  const ParallelLayout& layout_;
  Sizes z_;
  double peak_;
  double memory_rate_;
};

double ShardCosts::attention_forward() const {
  const double flops = 2 * z_.T * z_.s * (z_.A + z_.O);
  const DeviceConstants& constants = machine_.constants;
  if (!job_.fused_attention) return flops / (peak_ * constants.attention_unfused);
  return flops / (peak_ * attention_forward_rate(constants, z_.h * z_.T)) *
         (job_.first_flash ? machine_.framework.first_flash : 1);
}

double ShardCosts::scores_moved() const {
  if (job_.fused_attention) return 0;
  double passes = (job_.network.dropout ? 4 : 2) + 2;  // each product writes or reads them once more
  if (job_.eager_scores) passes *= machine_.framework.eager_scores;
  return moving(passes * z_.h * z_.T * z_.s);
}

// Latent attention's products to narrow vectors are on every tensor-parallel device, of its own tokens where these are
// sharded; those from there are cut by heads.
void ShardCosts::add_projections(LayerShard& layer) const {
  if (!job_.network.latent) {
    add_product(layer, z_.T, z_.A + 2 * z_.K, z_.C);
  } else {
    const double rows = z_.T * z_.replicated;
    if (z_.Q > 0) add_product(layer, rows, z_.Q, z_.C);
    add_product(layer, z_.T, z_.A, z_.Q > 0 ? z_.Q : z_.C);
    add_product(layer, rows, z_.R + z_.rope, z_.C);
    add_product(layer, z_.T, z_.nope + z_.O, z_.R);
  }
  add_product(layer, z_.T, z_.C, z_.O);
}

void ShardCosts::add_attention(LayerShard& layer) const {
  add_projections(layer);
  const double forward = attention_forward();
  const DeviceConstants& constants = machine_.constants;
  const double rows = z_.h * z_.T;
  const double ratio =
      job_.fused_attention ? attention_forward_rate(constants, rows) / attention_backward_rate(constants, rows) : 1;
  layer.forward += forward + scores_moved();
  layer.backward_input += 2 * forward * ratio + 2 * scores_moved();
}

void ShardCosts::add_mlp(LayerShard& layer) const {
  if (job_.network.experts == 0) {
    add_product(layer, z_.T, z_.inner, z_.C);
    add_product(layer, z_.T, z_.C, z_.F);
    return;
  }
  const double tokens = z_.T / z_.folded;
  add_product(layer, tokens, z_.experts, z_.C);  // router
  const double local = z_.experts / layout_.expert;
  const double rows = tokens * z_.chosen / local;  // an even load
  add_product(layer, rows, z_.inner * z_.folded, z_.C, local);
  add_product(layer, rows, z_.C, z_.F * z_.folded, local);
  if (z_.shared > 0) {
    add_product(layer, z_.T, z_.shared * z_.inner, z_.C);
    add_product(layer, z_.T, z_.C, z_.shared * z_.F);
  }
}

// One pass over inputs and outputs of each operation, as in models/network/transformer_graph.cpp.
void ShardCosts::add_elementwise(LayerShard& layer) const {
  const Transformer& t = job_.network;
  const double norms = 2 * 2 * (job_.fused_norm ? 1 : machine_.framework.unfused_norm);
  const double whole = (norms + 2 * 3 + (t.dropout ? 2 * 2 : 0)) * z_.C * z_.replicated;  // and residuals, dropout
  double rotation = t.position == PositionKind::rotary ? 2 * (z_.A + z_.K) : 0;
  if (t.latent) rotation = 2 * z_.A + z_.nope + z_.rope + z_.K + 2 * z_.O + norms / 2 * (z_.Q + z_.R) * z_.replicated;
  const double activation = z_.inner + z_.F;
  double mlp = activation;
  if (t.experts > 0) {
    mlp = (2 * z_.experts + z_.chosen * (activation * z_.folded + 3 * z_.C) + z_.C) / z_.folded;
    if (z_.shared > 0) mlp += z_.shared * activation + 3 * z_.C * z_.replicated;
  }
  const double time = machine_.framework.elementwise * moving((whole + rotation + mlp) * z_.T);
  layer.forward += time;
  layer.backward_input += time;
}

void ShardCosts::add_tensor_communication(LayerShard& layer) const {
  if (layout_.tensor == 1) return;
  const GroupShape tensor = group(Dimension::tensor, layout_.tensor);
  const double bytes = z_.T * z_.C * z_.element;
  const double shown = layout_.overlap_tensor ? machine_.framework.exposed_tensor : 1;
  // Experts that are whole on their devices need no more than the all-to-alls.
  const bool has_mlp = z_.folded == 1 || z_.shared > 0;
  const double input = z_.T * z_.attention_input() * z_.element;  // of latent attention, narrow
  if (layout_.sequence_parallel) {
    const double scatter = reduce_scatter_time(machine_, tensor, bytes);
    const double gather = all_gather_time(machine_, tensor, bytes);
    const double narrow = input == bytes ? gather : all_gather_time(machine_, tensor, input);
    const double pairs = narrow + scatter + (has_mlp ? gather + scatter : 0);
    layer.tensor_forward = layer.tensor_backward = pairs * shown;
    layer.tensor_backward += machine_.framework.repeated_gathers * (narrow + (has_mlp ? gather : 0));
  } else {
    const double sum = all_reduce_time(machine_, tensor, bytes);
    layer.tensor_forward = 2 * sum * shown;
    layer.tensor_backward = ((input == bytes ? sum : all_reduce_time(machine_, tensor, input)) + sum) * shown;
  }
}

// Keys and values go round the ring of context-parallel devices while attention works on those at hand.
void ShardCosts::add_context_communication(LayerShard& layer) const {
  if (layout_.context == 1) return;
  const double bytes = (z_.K + z_.values()) * z_.T * z_.element;
  const auto inner = static_cast<double>(inner_devices(layout_, Dimension::context));
  const double steps = layout_.context - 1;
  const bool crosses = inner * layout_.context > machine_.levels.front().devices;
  const double hop =
      message_time(machine_, crosses ? machine_.levels.front().devices : inner, inner * layout_.context, bytes);
  const double attention = attention_forward();
  layer.context_forward = std::max(0.0, steps * hop - attention);
  layer.context_backward = std::max(0.0, 2 * steps * hop - 2 * attention);
}

void ShardCosts::add_expert_communication(LayerShard& layer) const {
  if (layout_.expert == 1 || job_.network.experts == 0) return;
  const GroupShape experts = replica_groups(machine_, layout_).sharing;
  const double bytes = z_.T * z_.chosen * z_.C * z_.element * z_.replicated;
  layer.expert_forward = layer.expert_backward = 2 * all_to_all_time(machine_, experts, bytes);
}

void ShardCosts::add_recomputation(LayerShard& layer) const {
  layer.recompute[selective] = job_.fused_attention ? (1 - machine_.framework.selective_kept) * layer.forward
                                                    : attention_forward() + scores_moved();
  layer.recompute[full] = layer.forward;
  layer.tensor_recompute[full] = layer.tensor_forward;
}

// Korthikanti et al. 2022, equation 1 to 6, in the terms of transformer_graph.cpp.
void ShardCosts::add_stash(LayerShard& layer) const {
  const Transformer& t = job_.network;
  const double e = z_.element;
  const double inner = (t.activation == ActivationKind::swiglu ? machine_.framework.gated_kept : 2) * z_.F;
  // Inputs of norms, of qkv (in between, with latent attention, those behind its norms) and of the MLP; masks.
  const double whole = (4 * z_.C + 2 * (z_.Q + z_.R)) * e + (t.dropout ? 2 * z_.C : 0);
  double mlp = inner * e;
  if (t.experts > 0) {
    mlp = (z_.experts / z_.folded + z_.chosen * (2 * z_.C * z_.replicated + inner) + z_.shared * inner) * e;
  }
  const double sharded = (z_.A + z_.K + z_.values() + z_.O) * e + mlp;
  const double scores = job_.fused_attention ? 0 : z_.h * z_.s * (2 * e + (t.dropout ? 1 : 0));
  // A norm of several kernels keeps its result in fp32.
  const double norms = job_.fused_norm ? 0 : 2 * 4 * z_.C;
  const double unscored = (whole + norms) * z_.replicated + sharded;
  layer.stash[none] = z_.T * (unscored + scores);
  layer.stash[selective] = z_.T * unscored * (job_.fused_attention ? machine_.framework.selective_kept : 1);
  layer.stash[full] = z_.T * z_.C * e * z_.replicated;
  // Gradients of the widest tensor and its neighbour.
  layer.workspace = 2 * z_.T * std::max({z_.C, z_.inner * std::max(1.0, z_.shared), z_.R > 0 ? z_.nope + z_.O : 0}) * e;
}

void ShardCosts::count_parameters(LayerShard& layer) const {
  const Transformer& t = job_.network;
  const double norms = 2 * (t.norm == NormKind::layer_norm ? 2 : 1) * z_.C;
  const double biases = (t.qkv_bias ? z_.A + 2 * z_.K : 0) + (t.linear_bias ? z_.C : 0);
  const double mlp = z_.C * (z_.inner + z_.F) + (t.linear_bias ? z_.inner + z_.C : 0);
  double attention = z_.C * (z_.A + 2 * z_.K) + z_.A * z_.C;
  if (t.latent) {
    const double queries = z_.Q > 0 ? z_.Q * (1 + z_.C + z_.A) : z_.C * z_.A;  // with the norm's scales
    attention = queries + z_.C * (z_.R + z_.rope) + z_.R * (1 + z_.nope + z_.O) + z_.O * z_.C;
  }
  layer.parameters = norms + attention + biases;
  if (t.experts == 0) {
    layer.parameters += mlp;
  } else {
    layer.parameters += z_.C * z_.experts + z_.shared * mlp;
    layer.expert_parameters = z_.experts / layout_.expert * mlp * z_.folded;
  }
}

// Where the kernels, collectives among them, are shorter than the host takes to start them, the host is what the device
// waits for.
void ShardCosts::wait_for_host(LayerShard& layer) const {
  const FrameworkConstants& framework = machine_.framework;
  const bool both = layout_.tensor > 1 && pipeline_leaves_node(machine_, layout_);
  const double more = both ? framework.pipelined_dispatch_s * layout_.tensor : 0;
  layer.forward = std::max(layer.forward, framework.dispatch_forward_s + more - layer.tensor_forward);
  const double backward = layer.backward_input + layer.backward_weight;
  const double host = framework.dispatch_backward_s + 2 * more - layer.tensor_backward;
  const double slack = std::max(1.0, host / backward);
  layer.backward_input *= slack;
  layer.backward_weight *= slack;
}

LayerShard ShardCosts::block() const {
  LayerShard layer;
  add_attention(layer);
  add_mlp(layer);
  add_elementwise(layer);
  add_tensor_communication(layer);
  wait_for_host(layer);
  add_context_communication(layer);
  add_expert_communication(layer);
  add_recomputation(layer);
  add_stash(layer);
  count_parameters(layer);
  return layer;
}

LayerShard ShardCosts::embedding() const {
  const Transformer& t = job_.network;
  LayerShard layer;
  const bool learned = t.position == PositionKind::learned;
  layer.forward = moving(((learned ? 3 : 2) + (t.dropout ? 2 : 0)) * z_.C * z_.T);
  layer.backward_weight = layer.forward;
  if (layout_.tensor > 1) {
    const GroupShape tensor = group(Dimension::tensor, layout_.tensor);
    const double bytes = z_.T * z_.C * z_.element;
    layer.tensor_forward = all_reduce_time(machine_, tensor, bytes);
  }
  layer.stash.fill(t.dropout ? z_.T * z_.C * z_.replicated : 0);
  layer.parameters = z_.V * z_.C + (learned ? static_cast<double>(t.max_sequence) * z_.C : 0);
  return layer;
}

LayerShard ShardCosts::head() const {
  LayerShard layer;
  add_product(layer, z_.T, z_.V, z_.C);
  constexpr double loss_passes = 4;  // over the outputs in fp32: maximum, sum, probability, gradient
  const double loss = loss_passes * 4 * z_.T * z_.V / memory_rate_;
  layer.forward += moving(2 * z_.C * z_.T) + loss / 2;
  layer.backward_input += moving(2 * z_.C * z_.T) + loss / 2;
  if (layout_.tensor > 1) {
    const GroupShape tensor = group(Dimension::tensor, layout_.tensor);
    layer.tensor_backward = all_reduce_time(machine_, tensor, z_.T * z_.C * z_.element);
  }
  // Korthikanti et al. 2022, section 4.3: inputs of norm and projection. The outputs are gone before any block's
  // backward, and so is the 16-bit gradient of the weights.
  layer.stash.fill(z_.T * 2 * z_.C * z_.element * z_.replicated);
  const FrameworkConstants& framework = machine_.framework;
  const double outputs = framework.logits_sharded > 0 ? z_.V : static_cast<double>(job_.network.vocabulary);
  layer.workspace = z_.T * outputs * framework.logit_bytes + z_.element * z_.V * z_.C;
  layer.parameters = z_.C + z_.V * z_.C;
  return layer;
}

}  // namespace

double product_peak(const TrainingJob& job, const Machine& machine) {
  if (job.precision != DataType::fp8) return machine.device.peak_of(job.precision).value();
  return machine.device.peak_of(DataType::bf16).value() * machine.constants.fp8_speedup;
}

double activation_bytes(DataType precision) { return std::max(2.0, element_size(precision).value()); }

std::int64_t inner_devices(const ParallelLayout& layout, Dimension dimension) {
  const std::array<std::int64_t, dimension_count> sizes = {layout.tensor, layout.context, layout.data, layout.pipeline};
  std::int64_t product = 1;
  for (const Dimension inner : layout.order) {
    if (inner == dimension) break;
    product *= sizes[static_cast<std::size_t>(inner)];
  }
  return product;
}

namespace {

// The devices with the same blocks, tensor x context x data of them: those inside the pipeline dimension, and those
// outside.
std::pair<Spread, Spread> devices_of_rank(const ParallelLayout& layout) {
  const auto inside = static_cast<double>(inner_devices(layout, Dimension::pipeline));
  const auto all = static_cast<double>(layout.tensor) * layout.context * layout.data;
  return {Spread{1, inside}, Spread{inside * layout.pipeline, all / inside}};
}

}  // namespace

ReplicaGroups replica_groups(const Machine& machine, const ParallelLayout& layout) {
  const auto spread = [&](Dimension dimension, double members) {
    return Spread{static_cast<double>(inner_devices(layout, dimension)), members};
  };
  Spread within = spread(Dimension::context, layout.context), across = spread(Dimension::data, layout.data);
  if (across.stride < within.stride) std::swap(within, across);
  const auto part = [](const Spread& of, double stride, double members) { return Spread{of.stride * stride, members}; };
  const GroupShape replicas = group_of(machine, within, across);
  if (folds_experts(layout)) std::tie(within, across) = devices_of_rank(layout);
  const double near = std::min<double>(layout.expert, within.members), far = layout.expert / near;
  return {replicas, group_of(machine, part(within, 1, near), part(across, 1, far)),
          group_of(machine, part(within, near, within.members / near), part(across, far, across.members / far))};
}

bool same_shard(const ParallelLayout& a, const ParallelLayout& b) {
  return a.tensor == b.tensor && a.context == b.context && a.expert == b.expert && a.microbatch == b.microbatch &&
         a.sequence_parallel == b.sequence_parallel && a.overlap_tensor == b.overlap_tensor &&
         (a.tensor == 1 || (a.pipeline == b.pipeline &&
                            inner_devices(a, Dimension::pipeline) == inner_devices(b, Dimension::pipeline))) &&
         inner_devices(a, Dimension::tensor) == inner_devices(b, Dimension::tensor) &&
         inner_devices(a, Dimension::context) == inner_devices(b, Dimension::context) &&
         (a.expert == 1 || (a.data == b.data && a.pipeline == b.pipeline &&
                            inner_devices(a, Dimension::data) == inner_devices(b, Dimension::data)));
}

void MeanBlock::mix(const Shard& shard, double share) {
  const auto mean = [share](double a, double b) { return (1 - share) * a + share * b; };
  mean_ = shard.block;
  for (double LayerShard::*const member :
       {&LayerShard::forward, &LayerShard::backward_input, &LayerShard::backward_weight, &LayerShard::tensor_forward,
        &LayerShard::tensor_backward, &LayerShard::context_forward, &LayerShard::context_backward,
        &LayerShard::expert_forward, &LayerShard::expert_backward, &LayerShard::parameters,
        &LayerShard::expert_parameters}) {
    (*mean_).*member = mean(shard.block.*member, shard.dense_block.*member);
  }
  for (std::array<double, 3> LayerShard::*const member :
       {&LayerShard::recompute, &LayerShard::tensor_recompute, &LayerShard::stash}) {
    for (std::size_t mode = 0; mode < 3; ++mode) {
      ((*mean_).*member)[mode] = mean((shard.block.*member)[mode], (shard.dense_block.*member)[mode]);
    }
  }
  mean_->workspace =
      share < 1 ? std::max(shard.block.workspace, shard.dense_block.workspace) : shard.dense_block.workspace;
}

Shard shard_costs(const TrainingJob& job, const Machine& machine, const ParallelLayout& layout) {
  const ShardCosts costs(job, machine, layout);
  Shard shard{costs.block(), {}, {}, costs.embedding(), costs.head(), 0};
  if (job.network.dense_layers > 0) {
    TrainingJob dense = job;
    dense.network = dense_variant(job.network);
    shard.dense_block = ShardCosts(dense, machine, layout).block();
  }
  shard.mean_block =
      *MeanBlock(shard, static_cast<double>(job.network.layers), static_cast<double>(job.network.dense_layers));
  const Sizes z(job, layout);
  // Tensor-parallel devices of a stage send a share each and gather on arrival (Narayanan et al. 2021, section 4.1).
  shard.boundary = z.T * z.C * z.element / layout.tensor;
  return shard;
}

}  // namespace stagecraft
