// Causal attention with grouped queries: o = softmax(q k^T / sqrt(D), masked above the diagonal) v, a head at a time.
//
// Query head h reads key and value head h / (heads / kv_heads). Rows of q, k, v and of their gradients may be strided,
// so a packed (q | k | v) buffer works without copying: q = qkv, k = qkv + H*D, v = k + KV*D, both strides (H + 2 KV) *
// D.
#pragma once

#include <cstdint>

#include "kernels/types.hpp"

namespace stagecraft::kernels::cpu {

using kernels::AttentionShape;

constexpr std::int64_t attention_probability_floats(const AttentionShape& s) {
  return s.batch * s.heads * s.time * (s.past + s.time);
}

// Size of the scratch that forward and backward need; its contents mean nothing between calls.
std::int64_t attention_workspace_floats(const AttentionShape& shape);

// Overwrites o and, unless it is null, probabilities (zero above the diagonal).
void attention_forward(float* o,              // (B*T, H, D), packed
                       float* probabilities,  // (B, H, T, past + T) or null
                       const float* q,        // (B*T, H, D), rows q_stride apart
                       const float* k,        // (B*kv_time, KV, D), rows kv_stride apart
                       const float* v,        // (B*kv_time, KV, D), rows kv_stride apart
                       const AttentionShape& shape, float* workspace);

// Overwrites dq, and dk and dv unless it is to `add` to them (the queries behind this slice have left theirs there).
// With probabilities null they are recomputed from q and k (selective recompute, Korthikanti et al. 2022); the results
// are the same bits either way.
void attention_input_gradient(float* dq,                   // (B*T, H, D), rows q_stride apart
                              float* dk,                   // (B*kv_time, KV, D), rows kv_stride apart
                              float* dv,                   // (B*kv_time, KV, D), rows kv_stride apart
                              const float* d_o,            // (B*T, H, D), packed
                              const float* probabilities,  // (B, H, T, past + T) from the forward, or null
                              const float* q, const float* k, const float* v, const AttentionShape& shape,
                              float* workspace, bool add = false);

}  // namespace stagecraft::kernels::cpu
