#include "runtime/cpu/stage.hpp"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <utility>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/rope.hpp"

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

Stage::Stage(const StageSpec& spec, std::optional<ParameterView> shared_table, MemoryPool& pool, ShardGroup group)
    : spec_(spec),
      pool_(pool),
      group_(std::move(group)),
      layout_(lay_out(spec)),
      slabs_(static_cast<std::size_t>(spec.microbatches)),
      splits_(static_cast<std::size_t>(spec.microbatches)),
      caches_(static_cast<std::size_t>(spec.microbatches / spec.shape.slices)) {
  const Transformer& t = spec_.transformer;
  make_parameters(shared_table, pool);
  if (layout_.rope_table > 0) {
    rope_table_ = pool.allocate(layout_.rope_table, "rotation table");
    kernels::cpu::rope_table(rope_table_.data(), spec_.shape.whole_sequence(), t.head_size, t.rope_theta);
  }
  for (std::int64_t id = spec_.layers.first; id < spec_.layers.last; ++id) {
    modules_.push_back(make_module(spec_, id, group_, views_[modules_.size()], rope_table_.data()));
  }
  times_.resize(modules_.size());
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

void Stage::sum_shard_gradients() {
  if (!spec_.shard.sequence_parallel) return;
  for (const auto& entry : parameters_->entries()) {
    if (entry.parameter.norm) group_.sum(parameters_->gradients(entry));
  }
}

void Stage::open(std::int64_t microbatch) {
  Buffer& slab = slabs_[static_cast<std::size_t>(microbatch)];
  assert(!slab);
  slab = pool_.allocate(layout_.slab, "activations");
  if (layout_.cache > 0 && !cache(microbatch)) cache(microbatch) = pool_.allocate(layout_.cache, "keys and values");
}

void Stage::discard(std::int64_t microbatch) {
  slabs_[static_cast<std::size_t>(microbatch)].release();
  if ((microbatch + 1) % spec_.shape.slices == 0) cache(microbatch).release();
}

float* Stage::input(std::int64_t microbatch) {
  const std::int64_t offset = layout_.layers.front().input;
  return offset < 0 ? nullptr : slabs_[static_cast<std::size_t>(microbatch)].data() + offset;
}

std::span<std::int32_t> Stage::integers(std::int64_t microbatch, std::int64_t offset) {
  if (offset < 0) return {};
  // This part of the slab never holds floats.
  auto* data = reinterpret_cast<std::int32_t*>(slabs_[static_cast<std::size_t>(microbatch)].data() + offset);
  return {data, static_cast<std::size_t>(spec_.shape.rows())};
}

std::span<std::int32_t> Stage::tokens(std::int64_t microbatch) { return integers(microbatch, layout_.tokens); }
std::span<std::int32_t> Stage::targets(std::int64_t microbatch) { return integers(microbatch, layout_.targets); }

// What every call of a layer shares.
Pass Stage::pass(const StageLayout::Layer& layer, std::int64_t microbatch) {
  float* const slab = slabs_[static_cast<std::size_t>(microbatch)].data();
  Pass p;
  p.workspace = workspace_ + layout_.scratch;
  p.stash = layer.recomputed ? workspace_ + layout_.recomputed : slab + layer.stash;
  if (layer.input >= 0) {
    p.input = slab + layer.input;
    p.tokens = targets(microbatch).data();
  } else {
    p.tokens = tokens(microbatch).data();
  }
  p.slice = microbatch % spec_.shape.slices;
  Buffer& keys_and_values = cache(microbatch);  // none for weight gradients after the last input gradient
  if (layer.sizes.cache > 0 && keys_and_values) {
    p.cache = keys_and_values.data() + layer.cache;
    p.d_cache = p.cache + layer.sizes.cache / 2;
  }
  return p;
}

double Stage::forward(std::int64_t microbatch, float* output) {
  float* const slab = slabs_[static_cast<std::size_t>(microbatch)].data();
  double loss = 0;
  Stopwatch watch;
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    Pass p = pass(layout_.layers[i], microbatch);
    p.output = i + 1 < modules_.size() ? slab + layout_.layers[i + 1].input : output;
    loss += modules_[i]->forward(p);
    times_[i].forward = watch.lap();
  }
  return loss;
}

void Stage::backward(std::int64_t microbatch, const float* d_output, float* d_input) {
  const float* from = d_output;
  float* to = workspace_ + layout_.ping;
  Stopwatch watch;
  for (std::size_t i = modules_.size(); i-- > 0;) {
    const StageLayout::Layer& layer = layout_.layers[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) modules_[i]->forward(p);
    times_[i].recompute = watch.lap();
    p.d_output = from;
    p.d_input = i > 0 ? to : d_input;
    p.gradients = workspace_ + layout_.gradients;
    modules_[i]->backward_input(p);
    times_[i].backward_input = watch.lap();
    modules_[i]->backward_weight(p);
    times_[i].backward_weight = watch.lap();
    from = to;
    to = workspace_ + (to == workspace_ + layout_.ping ? layout_.pong : layout_.ping);
  }
  if (microbatch % spec_.shape.slices == 0) cache(microbatch).release();
  slabs_[static_cast<std::size_t>(microbatch)].release();
}

void Stage::backward_input(std::int64_t microbatch, const float* d_output, float* d_input) {
  Buffer& split_buffer = splits_[static_cast<std::size_t>(microbatch)];
  split_buffer = pool_.allocate(layout_.split, "gradients of activations");
  float* const split = split_buffer.data();
  if (layout_.layers.back().d_output >= 0) {
    kernels::cpu::copy(split + layout_.layers.back().d_output, d_output, layout_.boundary);
  }
  Stopwatch watch;
  for (std::size_t i = modules_.size(); i-- > 0;) {
    const StageLayout::Layer& layer = layout_.layers[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) {
      p.stash = split + layer.recomputed_stash;
      modules_[i]->forward(p);
    }
    times_[i].recompute = watch.lap();
    if (layer.d_output >= 0) p.d_output = split + layer.d_output;
    p.d_input = i > 0 ? split + layout_.layers[i - 1].d_output : d_input;
    p.gradients = split + layer.gradients;
    modules_[i]->backward_input(p);
    times_[i].backward_input = watch.lap();
  }
  if (microbatch % spec_.shape.slices == 0) cache(microbatch).release();
}

void Stage::backward_weight(std::int64_t microbatch) {
  Buffer& split_buffer = splits_[static_cast<std::size_t>(microbatch)];
  float* const split = split_buffer.data();
  Stopwatch watch;
  for (std::size_t i = modules_.size(); i-- > 0;) {
    const StageLayout::Layer& layer = layout_.layers[i];
    Pass p = pass(layer, microbatch);
    if (layer.recomputed) p.stash = split + layer.recomputed_stash;
    if (layer.d_output >= 0) p.d_output = split + layer.d_output;
    p.gradients = split + layer.gradients;
    modules_[i]->backward_weight(p);
    times_[i].backward_weight = watch.lap();
  }
  split_buffer.release();
  slabs_[static_cast<std::size_t>(microbatch)].release();
}

}  // namespace stagecraft::cpu
