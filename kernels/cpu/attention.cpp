#include "kernels/cpu/attention.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/gemm.hpp"
#include "kernels/cpu/vector_math.hpp"

// Queries are taken in tiles of rows, and a tile sees only the keys up to its own end: about half of the square is
// never computed, and a tile of scores stays in cache between its matrix products.

namespace stagecraft::kernels::cpu {
namespace {

constexpr std::int64_t tile_rows = 64;

// Rows [first, first + rows) of one head against keys [0, past + first + rows).
struct Tile {
  std::int64_t first;
  std::int64_t rows;
  std::int64_t past;
  std::int64_t keys() const { return past + first + rows; }
  std::int64_t visible(std::int64_t row) const { return past + first + row + 1; }
};

// Turns scores into probabilities in place; row i may see tile.visible(i) keys. Columns up to `columns` beyond those
// become zero.
STAGECRAFT_VECTORISED void causal_softmax(float* scores, std::int64_t stride, Tile tile, std::int64_t columns) {
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    float* row = scores + i * stride;
    const std::int64_t visible = tile.visible(i);
    float maximum = 0.0F;
    const float inverse = 1.0F / exponentiate_row(row, visible, maximum);
#pragma omp simd
    for (std::int64_t j = 0; j < visible; ++j) row[j] *= inverse;
    std::fill(row + visible, row + columns, 0.0F);
  }
}

// d_scores = scale * p * (dp - sum(p * dp)) in place of dp; rows of dp are tile.keys() apart.
STAGECRAFT_VECTORISED void softmax_gradient(float* dp, const float* p, std::int64_t p_stride, Tile tile, float scale) {
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    float* dp_row = dp + i * tile.keys();
    const float* p_row = p + i * p_stride;
    const std::int64_t visible = tile.visible(i);
    float dot = 0.0F;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t j = 0; j < visible; ++j) dot += p_row[j] * dp_row[j];
#pragma omp simd
    for (std::int64_t j = 0; j < visible; ++j) dp_row[j] = scale * p_row[j] * (dp_row[j] - dot);
    std::fill(dp_row + visible, dp_row + tile.keys(), 0.0F);
  }
}

void tile_probabilities(float* p, std::int64_t p_stride, std::int64_t columns, const float* q, const float* k,
                        const AttentionShape& s, Tile tile) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.head_size));
  gemm(tile.rows, tile.keys(), s.head_size, scale, {q + tile.first * s.q_stride, s.q_stride},
       {k, s.kv_stride, Transpose::yes}, 0.0F, p, p_stride);
  causal_softmax(p, p_stride, tile, columns);
}

// Calls body(batch, head, tile) for every tile, in order.
template <typename Body>
void for_each_tile(const AttentionShape& s, Body body) {
  for (std::int64_t b = 0; b < s.batch; ++b) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t first = 0; first < s.time; first += tile_rows) {
        body(b, h, Tile{first, std::min(tile_rows, s.time - first), s.past});
      }
    }
  }
}

// Offsets of head h of batch b from the starts of the buffers.
struct Offsets {
  std::int64_t q, kv, o, p;
};

std::int64_t kv_rows(const AttentionShape& s) { return s.kv_time > 0 ? s.kv_time : s.time; }

Offsets offsets(const AttentionShape& s, std::int64_t b, std::int64_t h) {
  const std::int64_t kv_head = h / (s.heads / s.kv_heads);
  return {.q = b * s.time * s.q_stride + h * s.head_size,
          .kv = b * kv_rows(s) * s.kv_stride + kv_head * s.head_size,
          .o = (b * s.time * s.heads + h) * s.head_size,
          .p = (b * s.heads + h) * s.time * (s.past + s.time)};
}

void zero_heads(float* x, const AttentionShape& s) {
  for (std::int64_t n = 0; n < s.batch * kv_rows(s); ++n) {
    std::fill_n(x + n * s.kv_stride, s.kv_heads * s.head_size, 0.0F);
  }
}

}  // namespace

std::int64_t attention_workspace_floats(const AttentionShape& shape) {
  return 2 * std::min(tile_rows, shape.time) * (shape.past + shape.time);
}

void attention_forward(float* o, float* probabilities, const float* q, const float* k, const float* v,
                       const AttentionShape& shape, float* workspace) {
  const AttentionShape& s = shape;
  const std::int64_t o_stride = s.heads * s.head_size;
  for_each_tile(s, [&](std::int64_t b, std::int64_t h, Tile tile) {
    const Offsets at = offsets(s, b, h);
    const bool stored = probabilities != nullptr;
    const std::int64_t p_stride = stored ? s.past + s.time : tile.keys();
    float* p = stored ? probabilities + at.p + tile.first * p_stride : workspace;
    tile_probabilities(p, p_stride, p_stride, q + at.q, k + at.kv, s, tile);
    gemm(tile.rows, s.head_size, tile.keys(), 1.0F, {p, p_stride}, {v + at.kv, s.kv_stride}, 0.0F,
         o + at.o + tile.first * o_stride, o_stride);
  });
}

void attention_input_gradient(float* dq, float* dk, float* dv, const float* d_o, const float* probabilities,
                              const float* q, const float* k, const float* v, const AttentionShape& shape,
                              float* workspace, bool add) {
  const AttentionShape& s = shape;
  const std::int64_t o_stride = s.heads * s.head_size;
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.head_size));
  float* const recomputed = workspace;
  float* const dp = workspace + std::min(tile_rows, s.time) * (s.past + s.time);
  if (!add) {
    zero_heads(dk, s);
    zero_heads(dv, s);
  }
  for_each_tile(s, [&](std::int64_t b, std::int64_t h, Tile tile) {
    const Offsets at = offsets(s, b, h);
    const std::int64_t keys = tile.keys();
    const bool stored = probabilities != nullptr;
    const std::int64_t p_stride = stored ? s.past + s.time : keys;
    const float* p = stored ? probabilities + at.p + tile.first * p_stride : recomputed;
    if (!stored) tile_probabilities(recomputed, keys, keys, q + at.q, k + at.kv, s, tile);
    const Matrix d_out{d_o + at.o + tile.first * o_stride, o_stride};
    gemm(tile.rows, keys, s.head_size, 1.0F, d_out, {v + at.kv, s.kv_stride, Transpose::yes}, 0.0F, dp, keys);
    softmax_gradient(dp, p, p_stride, tile, scale);
    const std::int64_t q_first = at.q + tile.first * s.q_stride;
    gemm(tile.rows, s.head_size, keys, 1.0F, {dp, keys}, {k + at.kv, s.kv_stride}, 0.0F, dq + q_first, s.q_stride);
    gemm(keys, s.head_size, tile.rows, 1.0F, {dp, keys, Transpose::yes}, {q + q_first, s.q_stride}, 1.0F, dk + at.kv,
         s.kv_stride);
    gemm(keys, s.head_size, tile.rows, 1.0F, {p, p_stride, Transpose::yes}, d_out, 1.0F, dv + at.kv, s.kv_stride);
  });
}

}  // namespace stagecraft::kernels::cpu
