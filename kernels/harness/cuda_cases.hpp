// What the cases of CUDA operations share. A function a family adds the cases of all its entry points at one shape: `d`
// is a call's tensors, on the device or in double; the numbers in brackets index the list of tensors above them.
// Private to kernels/harness.
#pragma once

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/types.hpp"
#include "kernels/harness/cuda_harness.hpp"

namespace stagecraft::kernels {

using CudaCases = std::vector<CudaCase>;
using Index = std::int64_t;
using Dev = const DeviceArguments&;
using D = const Arguments<double>&;
using cuda::Accumulate;
using cuda::Bf16;

inline constexpr float epsilon = 1e-5F;

// The reference adds; an operation that overwrites is compared with adding to zero.
inline void zero(double* x, Index count) { std::fill_n(x, count, 0.0); }

inline Accumulate accumulate_if(bool yes) { return yes ? Accumulate::yes : Accumulate::no; }

template <class T>
constexpr Storage storage_of() {
  return sizeof(T) == 2 ? Storage::bf16 : Storage::fp32;
}

// "bf16 " or "fp32 ", to begin a shape with.
template <class T>
constexpr const char* type_name() {
  return sizeof(T) == 2 ? "bf16" : "fp32";
}

// Makes the tensors that a case stores as T.
template <class T>
Tensor tensor_of(std::string name, Role role, std::int64_t count, double low = -1.0, double high = 1.0) {
  return {std::move(name), role, count, low, high, storage_of<T>()};
}

// cuda_elementwise_cases.cpp
template <class T>
void add_bias(CudaCases& cases, Index rows, Index channels);
template <class T>
void add_gelu(CudaCases& cases, Index rows, Index channels, double range);
template <class T>
void add_swiglu(CudaCases& cases, Index rows, Index features, double range);
template <class T>
void add_rope(CudaCases& cases, Index batch, Index time, Index heads, Index head_size, Index stride);
void add_elementwise(CudaCases& cases, Index count);
void add_memset_nodes(CudaCases& cases, Index count);
void add_take_next(CudaCases& cases, Index parts, Index count);

// cuda_linear_cases.cpp
struct LinearOptions {
  bool bias = true;
  cuda::MatrixType fp32_inputs = cuda::MatrixType::fp32;
  bool tuned = false;
};
template <class T>
void add_linear(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs,
                LinearOptions options);
void add_linear_gelu(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs);
void add_gemm_cache(CudaCases& cases, CudaLibraries& libraries);

// cuda_optimizer_cases.cpp
void add_adamw(CudaCases& cases, Index count, Index step, bool in_pieces);
void add_sgd(CudaCases& cases, Index count, bool momentum);
void add_squared_norm(CudaCases& cases, Index count);
void add_clip_scale(CudaCases& cases, double squared_norm);

// cuda_norm_cases.cpp
template <class T>
void add_layer_norm(CudaCases& cases, Index rows, Index channels);
template <class T>
void add_rms_norm(CudaCases& cases, Index rows, Index channels);

// cuda_attention_cases.cpp. q, k and v are packed into one row.
template <class T>
void add_attention(CudaCases& cases, const AttentionShape& shape, double range);
void add_cudnn_attention(CudaCases& cases, CudaLibraries& libraries, const AttentionShape& shape, double range);
AttentionShape packed_attention(Index batch, Index time, Index heads, Index kv_heads, Index head_size);

// cuda_shard_cases.cpp. `stride`: of the rows of one shard's logits.
template <class T>
void add_shard_cross_entropy(CudaCases& cases, Index rows, Index vocabulary, Index shards, Index stride, double range);
template <class T>
void add_shard_embedding(CudaCases& cases, Index batch, Index time, Index channels, Index vocabulary, Index shards);

}  // namespace stagecraft::kernels
