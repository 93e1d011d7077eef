#include "runtime/cpu/stage_layout.hpp"

#include <algorithm>
#include <array>

#include "kernels/cpu/rope.hpp"
#include "runtime/cpu/carver.hpp"

namespace stagecraft::cpu {
namespace {

std::int64_t parameter_floats(const StageSpec& spec) {
  Carver carver;
  for (std::int64_t layer = spec.layers.first; layer < spec.layers.last; ++layer) {
    for (const Parameter& parameter : layer_parameters(spec.transformer, layer)) carver.take(parameter.count());
  }
  if (spec.has_head() && !spec.has_embedding() && spec.transformer.tied_head) {
    carver.take(layer_parameters(spec.transformer, 0).front().count());
  }
  return carver.size();
}

}  // namespace

std::unique_ptr<Module> make_module(const StageSpec& spec, std::int64_t layer, const ShardGroup& group,
                                    std::span<const ParameterView> parameters, const float* rope_table) {
  if (layer == 0) return make_embedding(spec, group, parameters);
  if (layer == spec.transformer.layers + 1) return make_head(spec, group, parameters);
  return make_block(spec, group, parameters, rope_table);
}

StageLayout lay_out(const StageSpec& spec) {
  StageLayout layout;
  const std::int64_t rows = spec.shape.rows();
  layout.rows = rows;
  layout.boundary = spec.own_rows() * spec.transformer.hidden;
  layout.parameters = parameter_floats(spec);
  Carver slab, split, cache;
  if (spec.has_embedding()) layout.tokens = slab.take(rows);
  if (spec.has_head()) layout.targets = slab.take(rows);
  std::int64_t gradients = 0, recomputed = 0, scratch = 0;
  // Sizes do not depend on where the parameters and the other shards are.
  const std::array<ParameterView, 16> nowhere{};
  const ShardGroup nobody;
  for (std::int64_t id = spec.layers.first; id < spec.layers.last; ++id) {
    const bool embedding = id == 0, head = id == spec.transformer.layers + 1;
    StageLayout::Layer layer;
    layer.sizes = make_module(spec, id, nobody, nowhere, nullptr)->sizes();
    layer.recomputed = !embedding && !head && spec.recompute == Recompute::full;
    if (!embedding) layer.input = slab.take(layout.boundary);
    if (!head) layer.d_output = split.take(layout.boundary);
    layer.gradients = split.take(layer.sizes.gradients);
    if (layer.recomputed) {
      layer.recomputed_stash = split.take(layer.sizes.stash);
      recomputed = std::max(recomputed, layer.sizes.stash);
    } else {
      layer.stash = slab.take(layer.sizes.stash);
    }
    layer.cache = cache.take(layer.sizes.cache);
    gradients = std::max(gradients, layer.sizes.gradients);
    scratch = std::max(scratch, layer.sizes.workspace);
    layout.layers.push_back(layer);
  }
  Carver workspace;
  layout.ping = workspace.take(layout.boundary);
  layout.pong = workspace.take(layout.boundary);
  layout.gradients = workspace.take(gradients);
  layout.recomputed = workspace.take(recomputed);
  layout.scratch = workspace.take(scratch);
  layout.slab = slab.size(), layout.split = split.size(), layout.workspace = workspace.size();
  layout.cache = cache.size();
  if (spec.transformer.position == PositionKind::rotary) {
    layout.rope_table = kernels::cpu::rope_table_floats(spec.shape.whole_sequence(), spec.transformer.head_size);
  }
  return layout;
}

std::int64_t layer_stash(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  const std::int64_t input = at.input >= 0 ? layout.boundary : layout.rows;  // the embedding's are tokens
  return input + (at.recomputed ? 0 : at.sizes.stash);
}

std::int64_t layer_split(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  return (at.d_output >= 0 ? layout.boundary : 0) + at.sizes.gradients + (at.recomputed ? at.sizes.stash : 0);
}

std::int64_t layer_workspace(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  return 2 * layout.boundary + at.sizes.gradients + at.sizes.workspace + (at.recomputed ? at.sizes.stash : 0);
}

}  // namespace stagecraft::cpu
