#include "runtime/cpu/stage.hpp"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <utility>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/rope.hpp"
#include "runtime/cpu/carver.hpp"

namespace stagecraft::cpu {
namespace {

// Seconds since the last call, or since construction.
class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

Stage::Stage(const StageSpec& spec, std::optional<ParameterView> shared_table, MemoryPool& pool)
    : spec_(spec),
      pool_(pool),
      slabs_(static_cast<std::size_t>(spec.microbatches)),
      splits_(static_cast<std::size_t>(spec.microbatches)) {
  const Transformer& t = spec_.transformer;
  make_parameters(shared_table, pool);
  if (t.position == PositionKind::rotary) {
    rope_table_ = pool.allocate(kernels::cpu::rope_table_floats(spec_.shape.sequence, t.head_size), "rotation table");
    kernels::cpu::rope_table(rope_table_.data(), spec_.shape.sequence, t.head_size, t.rope_theta);
  }
  const bool keep_probabilities = spec_.recompute != Recompute::selective && !spec_.fused_attention;
  for (std::int64_t id = spec_.layers.first; id < spec_.layers.last; ++id) {
    const auto& views = views_[layers_.size()];
    Layer layer;
    if (id == 0) {
      layer.module = make_embedding(t, spec_.shape, views);
    } else if (id <= t.layers) {
      layer.module = make_block(t, spec_.shape, views, keep_probabilities, rope_table_.data());
      layer.recomputed = spec_.recompute == Recompute::full;
    } else {
      layer.module = make_head(t, spec_.shape, views, spec_.gradient_scale);
    }
    layer.sizes = layer.module->sizes();
    layers_.push_back(std::move(layer));
  }
  times_.resize(layers_.size());
  lay_out();
}

void Stage::make_parameters(std::optional<ParameterView> shared_table, MemoryPool& pool) {
  const Transformer& t = spec_.transformer;
  std::vector<Parameter> owned, copies;
  std::vector<std::size_t> counts;
  for (std::int64_t id = spec_.layers.first; id < spec_.layers.last; ++id) {
    auto list = layer_parameters(t, id);
    counts.push_back(list.size());
    std::move(list.begin(), list.end(), std::back_inserter(owned));
  }
  const bool tied = has_head() && t.tied_head;
  if (tied && !has_embedding() && !shared_table) copies.push_back(layer_parameters(t, 0).front());
  parameters_ = std::make_unique<ParameterStore>(std::move(owned), std::move(copies), spec_.optimizer, pool);

  std::size_t next = 0;
  for (const std::size_t count : counts) {
    auto& views = views_.emplace_back();
    for (std::size_t i = 0; i < count; ++i) views.push_back(parameters_->view(next++));
  }
  const auto& entries = parameters_->entries();
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [](const auto& entry) { return entry.parameter.name == token_table; });
  if (found != entries.end()) {
    table_ = &*found;
    if (!shared_table) shared_table = parameters_->view(static_cast<std::size_t>(found - entries.begin()));
  }
  if (tied) views_.back().push_back(*shared_table);
}

void Stage::lay_out() {
  const std::int64_t rows = spec_.shape.rows(), hidden = boundary_floats();
  Carver slab, split;
  if (has_embedding()) tokens_ = slab.take(rows);
  if (has_head()) targets_ = slab.take(rows);
  std::int64_t gradients = 0, recomputed = 0, scratch = 0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const bool embedding = i == 0 && has_embedding(), head = i + 1 == layers_.size() && has_head();
    if (!embedding) layer.input = slab.take(hidden);
    if (!head) layer.d_output = split.take(hidden);
    layer.gradients = split.take(layer.sizes.gradients);
    if (layer.recomputed) {
      layer.recomputed_stash = split.take(layer.sizes.stash);
      recomputed = std::max(recomputed, layer.sizes.stash);
    } else {
      layer.stash = slab.take(layer.sizes.stash);
    }
    gradients = std::max(gradients, layer.sizes.gradients);
    scratch = std::max(scratch, layer.sizes.workspace);
  }
  Carver workspace;
  ping_ = workspace.take(hidden);
  pong_ = workspace.take(hidden);
  gradients_ = workspace.take(gradients);
  recomputed_ = workspace.take(recomputed);
  scratch_ = workspace.take(scratch);
  slab_floats_ = slab.size(), split_floats_ = split.size(), workspace_floats_ = workspace.size();
}

std::int64_t Stage::layer_stash_floats(std::size_t layer) const {
  const Layer& at = layers_[layer];
  const std::int64_t input = at.input >= 0 ? boundary_floats() : spec_.shape.rows();
  return input + (at.recomputed ? 0 : at.sizes.stash);
}

std::int64_t Stage::layer_workspace_floats(std::size_t layer) const {
  const Layer& at = layers_[layer];
  return 2 * boundary_floats() + at.sizes.gradients + at.sizes.workspace + (at.recomputed ? at.sizes.stash : 0);
}

void Stage::open(std::int64_t microbatch) {
  Buffer& slab = slabs_[static_cast<std::size_t>(microbatch)];
  assert(!slab);
  slab = pool_.allocate(slab_floats_, "activations");
}

float* Stage::input(std::int64_t microbatch) {
  const std::int64_t offset = layers_.front().input;
  return offset < 0 ? nullptr : slabs_[static_cast<std::size_t>(microbatch)].data() + offset;
}

std::span<std::int32_t> Stage::integers(std::int64_t microbatch, std::int64_t offset) {
  if (offset < 0) return {};
  // This part of the slab never holds floats.
  auto* data = reinterpret_cast<std::int32_t*>(slabs_[static_cast<std::size_t>(microbatch)].data() + offset);
  return {data, static_cast<std::size_t>(spec_.shape.rows())};
}

std::span<std::int32_t> Stage::tokens(std::int64_t microbatch) { return integers(microbatch, tokens_); }
std::span<std::int32_t> Stage::targets(std::int64_t microbatch) { return integers(microbatch, targets_); }

// What every call of a layer shares.
Pass Stage::pass(const Layer& layer, std::int64_t microbatch) {
  float* const slab = slabs_[static_cast<std::size_t>(microbatch)].data();
  Pass p;
  p.workspace = workspace_ + scratch_;
  p.stash = layer.recomputed ? workspace_ + recomputed_ : slab + layer.stash;
  if (layer.input >= 0) {
    p.input = slab + layer.input;
    p.tokens = targets(microbatch).data();
  } else {
    p.tokens = tokens(microbatch).data();
  }
  return p;
}

double Stage::forward(std::int64_t microbatch, float* output) {
  float* const slab = slabs_[static_cast<std::size_t>(microbatch)].data();
  double loss = 0;
  Stopwatch watch;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Pass p = pass(layers_[i], microbatch);
    p.output = i + 1 < layers_.size() ? slab + layers_[i + 1].input : output;
    loss += layers_[i].module->forward(p);
    times_[i].forward = watch.lap();
  }
  return loss;
}

void Stage::backward(std::int64_t microbatch, const float* d_output, float* d_input) {
  const float* from = d_output;
  float* to = workspace_ + ping_;
  Stopwatch watch;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = layers_[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) layer.module->forward(p);
    times_[i].recompute = watch.lap();
    p.d_output = from;
    p.d_input = i > 0 ? to : d_input;
    p.gradients = workspace_ + gradients_;
    layer.module->backward_input(p);
    times_[i].backward_input = watch.lap();
    layer.module->backward_weight(p);
    times_[i].backward_weight = watch.lap();
    from = to;
    to = workspace_ + (to == workspace_ + ping_ ? pong_ : ping_);
  }
  slabs_[static_cast<std::size_t>(microbatch)].release();
}

void Stage::backward_input(std::int64_t microbatch, const float* d_output, float* d_input) {
  Buffer& split_buffer = splits_[static_cast<std::size_t>(microbatch)];
  split_buffer = pool_.allocate(split_floats_, "gradients of activations");
  float* const split = split_buffer.data();
  if (layers_.back().d_output >= 0) {
    kernels::cpu::copy(split + layers_.back().d_output, d_output, boundary_floats());
  }
  Stopwatch watch;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = layers_[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) {
      p.stash = split + layer.recomputed_stash;
      layer.module->forward(p);
    }
    times_[i].recompute = watch.lap();
    if (layer.d_output >= 0) p.d_output = split + layer.d_output;
    p.d_input = i > 0 ? split + layers_[i - 1].d_output : d_input;
    p.gradients = split + layer.gradients;
    layer.module->backward_input(p);
    times_[i].backward_input = watch.lap();
  }
}

void Stage::backward_weight(std::int64_t microbatch) {
  Buffer& split_buffer = splits_[static_cast<std::size_t>(microbatch)];
  float* const split = split_buffer.data();
  Stopwatch watch;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = layers_[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) p.stash = split + layer.recomputed_stash;
    if (layer.d_output >= 0) p.d_output = split + layer.d_output;
    p.gradients = split + layer.gradients;
    layer.module->backward_weight(p);
    times_[i].backward_weight = watch.lap();
  }
  split_buffer.release();
  slabs_[static_cast<std::size_t>(microbatch)].release();
}

}  // namespace stagecraft::cpu
