#include "runtime/cuda/stage.hpp"

#include <algorithm>

namespace stagecraft::cuda {
namespace {

template <class T>
std::unique_ptr<Layer> make_layer(const StageSpec& spec, std::int64_t id, const Engine& engine,
                                  std::span<const ParameterView> parameters, const float* rope_table) {
  if (id == 0) return make_embedding<T>(spec, engine, parameters);
  if (id == spec.transformer.layers + 1) return make_head<T>(spec, engine, parameters);
  return make_block<T>(spec, engine, parameters, rope_table);
}

}  // namespace

Stage::Stage(const RankLayout::Stage& place, std::byte* arena, const Workspace& workspace, const Engine& engine,
             const ParameterView* shared_table)
    : place_(place),
      arena_(arena),
      slabs_(arena + place.first_slab),
      splits_(arena + place.first_split),
      caches_(arena + place.first_cache),
      workspace_(workspace) {
  const StageSpec& spec = place_.spec;
  const bool bf16 = spec.precision == DataType::bf16;
  for (std::int64_t id = spec.layers.first; id < spec.layers.last; ++id) {
    const StageLayout::Layer& layer = layout().layers[layers_.size()];
    std::vector<ParameterView> views;
    for (std::size_t i = 0; i < layer.parameters; ++i) views.push_back(view(layer.first_parameter + i));
    if (id == spec.transformer.layers + 1 && spec.transformer.tied_head) {
      const ParameterEntry* const own = table();
      views.push_back(own == nullptr ? *shared_table : view(static_cast<std::size_t>(own - layout().entries.data())));
    }
    layers_.push_back(bf16 ? make_layer<Bf16>(spec, id, engine, views, workspace.rope_table)
                           : make_layer<float>(spec, id, engine, views, workspace.rope_table));
  }
}

ParameterView Stage::view(std::size_t entry) const {
  const std::int64_t offset = layout().entries[entry].offset;
  const std::int64_t element = place_.spec.precision == DataType::bf16 ? 2 : 4;
  return {arena_ + place_.weights + offset * element, reinterpret_cast<float*>(arena_ + place_.gradients) + offset};
}

// The blocks are alike: one of them speaks for all.
void Stage::prepare(std::span<std::byte> scratch) const {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::int64_t id = place_.spec.layers.first + static_cast<std::int64_t>(i);
    if (i == 0 || id <= 1 || id == place_.spec.transformer.layers + 1) layers_[i]->prepare(scratch);
  }
}

std::int32_t* Stage::integers(int slab_number, std::int64_t offset) const {
  return offset < 0 ? nullptr : reinterpret_cast<std::int32_t*>(slab(slab_number) + offset);
}

// What every call of a layer shares.
Pass Stage::pass(std::size_t layer, const Place& at) const {
  const StageLayout::Layer& where = layout().layers[layer];
  Pass p;
  p.scratch = workspace_.scratch;
  p.stash = where.recomputed ? workspace_.recomputed : slab(at.slab) + where.stash;
  p.loss_sum = &workspace_.step_state->loss_sum;
  p.slice = at.slice;
  if (at.cache >= 0) p.cache = caches_ + at.cache * layout().cache_bytes + where.cache;
  p.accumulate = at.first ? Accumulate::no : Accumulate::yes;
  if (where.input >= 0) {
    p.input = slab(at.slab) + where.input;
    p.tokens = targets(at.slab);
  } else {
    p.tokens = tokens(at.slab);
  }
  return p;
}

void Stage::forward(const Place& at, std::byte* output) const {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Pass p = pass(i, at);
    p.output = i + 1 < layers_.size() ? slab(at.slab) + layout().layers[i + 1].input : output;
    layers_[i]->forward(p);
  }
}

void Stage::backward(const Place& at, std::byte* d_input, LayerSpan layers) const {
  for (std::size_t i = layers.last; i-- > layers.first;) {
    Pass p = pass(i, at);
    if (layout().layers[i].recomputed) layers_[i]->forward(p);
    // Gradients go back and forth between two buffers.
    std::byte* const buffers[] = {workspace_.ping, workspace_.pong};
    const std::size_t passed = layers_.size() - 1 - i;
    if (passed > 0) {
      p.d_output = buffers[(passed - 1) % 2];
    } else if (layout().d_output >= 0) {
      p.d_output = d_output(at.slab);
    }
    p.d_input = i > 0 ? buffers[passed % 2] : d_input;
    p.gradients = workspace_.gradients;
    layers_[i]->backward_input(p);
    layers_[i]->backward_weight(p);
  }
}

const std::byte* Stage::d_output_of(std::size_t layer, const Place& at) const {
  if (layer + 1 < layers_.size()) return split(at.split) + layout().layers[layer].d_output;
  return layout().d_output >= 0 ? d_output(at.slab) : nullptr;
}

void Stage::backward_input(const Place& at, std::byte* d_input) const {
  for (std::size_t i = layers_.size(); i-- > 0;) {
    const StageLayout::Layer& where = layout().layers[i];
    Pass p = pass(i, at);
    if (where.recomputed) {
      p.stash = split(at.split) + where.recomputed_stash;
      layers_[i]->forward(p);
    }
    p.d_output = d_output_of(i, at);
    p.d_input = i > 0 ? split(at.split) + layout().layers[i - 1].d_output : d_input;
    p.gradients = split(at.split) + where.gradients;
    layers_[i]->backward_input(p);
  }
}

void Stage::backward_weight(const Place& at, LayerSpan layers) const {
  for (std::size_t i = layers.last; i-- > layers.first;) {
    const StageLayout::Layer& where = layout().layers[i];
    Pass p = pass(i, at);
    if (where.recomputed) p.stash = split(at.split) + where.recomputed_stash;
    p.d_output = d_output_of(i, at);
    p.gradients = split(at.split) + where.gradients;
    layers_[i]->backward_weight(p);
  }
}

}  // namespace stagecraft::cuda
