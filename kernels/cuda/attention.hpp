// Causal attention with grouped queries: o = softmax(q k^T / sqrt(D), masked above the diagonal) v, in the plain way: a
// warp takes a query, or a key, and walks over the others.
//
// For float, for head sizes that cuDNN has no engine for, and as what cudnn_attention.hpp is tested against; that one
// is some 100 times faster. Rows of q, k, v and of their gradients may be strided, so a packed (q | k | v) buffer works
// without copying: q = qkv, k = qkv + H*D, v = k + KV*D, both strides (H + 2 KV) * D. Probabilities are never stored:
// the backward makes them again from log_sum (Dao et al. 2022).
#pragma once

#include "kernels/cuda/types.hpp"
#include "kernels/types.hpp"

namespace stagecraft::kernels::cuda {

inline constexpr std::int64_t largest_plain_head_size = 256;

// Throws Error if the queries are a slice of their sequence (past, kv_time): not done through cuDNN.
void require_whole_sequences(const AttentionShape& shape);

// Overwrites o and log_sum, the logarithm of the sum of a query's exponentiated scores. A head size above
// largest_plain_head_size throws Error. With kv_time KT, else T, rows of keys and values a sample:
template <class T>
void attention_forward(T* o,            // (B*T, H, D), packed
                       float* log_sum,  // (B, H, T)
                       const T* q,      // (B*T, H, D), rows q_stride apart
                       const T* k,      // (B*KT, KV, D), rows kv_stride apart
                       const T* v,      // (B*KT, KV, D), rows kv_stride apart
                       const AttentionShape& shape, cudaStream_t stream);

constexpr std::int64_t attention_input_gradient_workspace_floats(const AttentionShape& s) {
  return s.batch * s.heads * s.time;
}

// Overwrites dq, and of dk and dv the rows of the keys that the queries see, past + T of them, or adds to those with
// `add`.
template <class T>
void attention_input_gradient(T* dq,                 // (B*T, H, D), rows q_stride apart
                              T* dk,                 // (B*KT, KV, D), rows kv_stride apart
                              T* dv,                 // (B*KT, KV, D), rows kv_stride apart
                              const T* d_o,          // (B*T, H, D), packed
                              const T* o,            // (B*T, H, D), of the forward
                              const float* log_sum,  // (B, H, T), of the forward
                              const T* q, const T* k, const T* v, const AttentionShape& shape, float* workspace,
                              cudaStream_t stream, bool add = false);

}  // namespace stagecraft::kernels::cuda
