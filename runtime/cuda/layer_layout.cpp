#include "runtime/cuda/layer_layout.hpp"

#include <algorithm>

namespace stagecraft::cuda {
namespace {

std::int64_t packed_width(const Transformer& t) { return (t.heads + 2 * t.kv_heads) * t.head_size; }
std::int64_t up_width(const Transformer& t) { return t.activation == ActivationKind::swiglu ? 2 * t.ffn : t.ffn; }

// The kernels sum columns in at most 64 chunks of rows (kernels/cuda/column_sums.cuh), for two results at most.
std::int64_t column_sums_bytes(std::int64_t columns, int results) {
  return std::int64_t{64} * results * columns * float_bytes;
}

// The most that cuDNN's backward takes on any GPU (tests/runtime/attention_plans_test.cpp): a float for every query; dq
// in float, which the engines for compute capability 8 have twice, or to repeat its bits the gradients of all scores;
// where heads share keys, dk and dv of each head before they are summed. The plain kernels take less.
std::int64_t attention_bytes(const StageSpec& spec) {
  constexpr std::int64_t bf16_bytes = 2, tile = 128;  // engines work on tiles of so many queries and keys
  const Transformer& t = spec.transformer;
  const std::int64_t delta = aligned(spec.shape.rows() * t.heads * float_bytes), rest = 1 << 20;
  if (spec.precision != DataType::bf16) return delta + rest;
  const std::int64_t time = (spec.shape.sequence + tile - 1) / tile * tile;
  const std::int64_t queries = spec.shape.microbatch * t.heads * time;
  const std::int64_t dq = queries * (spec.deterministic ? time * bf16_bytes : 2 * t.head_size * float_bytes);
  const std::int64_t by_head = t.heads == t.kv_heads ? 0 : 2 * queries * t.head_size * bf16_bytes;
  return delta + aligned(dq) + by_head + rest;
}

// Of a buffer for all rows where the residual stream has a part of them.
std::int64_t rows_bytes(const StageSpec& spec) {
  if (!spec.shard.sequence_parallel) return 0;
  return spec.shape.rows() * spec.transformer.hidden * element_bytes(spec);
}

}  // namespace

std::int64_t element_bytes(const StageSpec& spec) { return spec.precision == DataType::bf16 ? 2 : 4; }

std::int64_t padded_vocabulary(const Transformer& t) {
  return (t.vocabulary + vocabulary_multiple - 1) / vocabulary_multiple * vocabulary_multiple;
}

BlockLayout lay_out_block(const StageSpec& spec) {
  const Transformer& t = spec.transformer;
  const std::int64_t rows = spec.shape.rows(), element = element_bytes(spec);
  const std::int64_t hidden = spec.own_rows() * t.hidden * element, packed = rows * packed_width(t) * element;
  const std::int64_t attended = rows * t.heads * t.head_size * element;
  const std::int64_t up = rows * up_width(t) * element, activated = rows * t.ffn * element;
  const std::int64_t statistics = 2 * spec.own_rows() * float_bytes;
  BlockLayout layout;
  Carver stash;
  layout.normed = stash.take(hidden);
  layout.norm_statistics = stash.take(statistics);
  layout.qkv = stash.take(packed);
  layout.log_sum = stash.take(rows * t.heads * float_bytes);
  layout.attended = stash.take(attended);
  layout.middle = stash.take(hidden);
  layout.mlp_normed = stash.take(hidden);
  layout.mlp_statistics = stash.take(statistics);
  layout.up = stash.take(up);
  layout.activated = stash.take(activated);
  layout.stash_bytes = stash.size();
  if (spec.shape.slices > 1) {
    Carver cache;
    const std::int64_t keys = spec.shape.microbatch * spec.shape.whole_sequence() * t.kv_heads * t.head_size;
    layout.cache = cache.take(2 * keys * element);
    layout.d_cache = cache.take(2 * keys * element);
    layout.cache_bytes = cache.size();
  }
  Carver gradients;
  layout.d_up = gradients.take(up);
  layout.d_mlp_normed = gradients.take(hidden);
  layout.d_middle = gradients.take(hidden);
  layout.d_qkv = gradients.take(packed);
  layout.d_normed = gradients.take(hidden);
  layout.d_output_rows = gradients.take(rows_bytes(spec));
  layout.d_middle_rows = gradients.take(rows_bytes(spec));
  layout.gradient_bytes = gradients.size();
  Carver scratch;
  layout.attention_bytes = attention_bytes(spec);
  layout.sums_bytes =
      std::max(column_sums_bytes(t.hidden, 2), column_sums_bytes(std::max(packed_width(t), up_width(t)), 1));
  layout.d_attended = scratch.take(attended);
  layout.attention = scratch.take(layout.attention_bytes);
  layout.sums = scratch.take(layout.sums_bytes);
  layout.d_activated = 0;
  if (t.activation == ActivationKind::swiglu) scratch.reach(activated);
  layout.rows = scratch.take(rows_bytes(spec));
  layout.scratch_bytes = scratch.size();
  return layout;
}

HeadLayout lay_out_head(const StageSpec& spec) {
  const Transformer& t = spec.transformer;
  const std::int64_t rows = spec.shape.rows(), element = element_bytes(spec);
  HeadLayout layout;
  Carver stash;
  layout.normed = stash.take(spec.own_rows() * t.hidden * element);
  layout.norm_statistics = stash.take(2 * spec.own_rows() * float_bytes);
  layout.logits = stash.take(rows * padded_vocabulary(t) * element);
  layout.losses = stash.take(rows * float_bytes);
  layout.stash_bytes = stash.size();
  Carver gradients;
  layout.d_normed = gradients.take(spec.own_rows() * t.hidden * element);
  layout.gradient_bytes = gradients.size();
  Carver scratch;
  layout.sums = scratch.take(column_sums_bytes(t.hidden, 2));
  if (spec.shard.count > 1) layout.statistics = scratch.take(std::int64_t{3} * spec.shard.count * rows * float_bytes);
  layout.rows = scratch.take(rows_bytes(spec));
  layout.scratch_bytes = scratch.size();
  return layout;
}

// Sorting takes two lists of the tokens, and a row of sums for every 8 of them (kernels/cuda/embedding.cu).
EmbeddingLayout lay_out_embedding(const StageSpec& spec) {
  const std::int64_t rows = spec.shape.rows();
  EmbeddingLayout layout;
  Carver scratch;
  layout.sorting_bytes = 2 * aligned(rows * 4) + aligned((rows + 7) / 8 * spec.transformer.hidden * float_bytes);
  layout.sorting = scratch.take(layout.sorting_bytes);
  layout.rows = scratch.take(rows_bytes(spec));
  layout.scratch_bytes = scratch.size();
  return layout;
}

}  // namespace stagecraft::cuda
