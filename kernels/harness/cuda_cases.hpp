// Which CUDA operations the harness knows: a function a family adds the cases of all its entry points at one shape.
// Private to kernels/harness.
#pragma once

#include <fmt/format.h>

#include "kernels/cuda/types.hpp"
#include "kernels/harness/cuda_harness.hpp"

namespace stagecraft::kernels {

using CudaCases = std::vector<CudaCase>;

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
void add_bias(CudaCases& cases, std::int64_t rows, std::int64_t channels);
template <class T>
void add_gelu(CudaCases& cases, std::int64_t rows, std::int64_t channels, double range);
template <class T>
void add_swiglu(CudaCases& cases, std::int64_t rows, std::int64_t features, double range);
template <class T>
void add_rope(CudaCases& cases, std::int64_t batch, std::int64_t time, std::int64_t heads, std::int64_t head_size,
              std::int64_t stride);
void add_elementwise(CudaCases& cases, std::int64_t count);

// cuda_linear_cases.cpp
struct LinearOptions {
  bool bias = true;
  cuda::MatrixType fp32_inputs = cuda::MatrixType::fp32;
  bool tuned = false;
};
template <class T>
void add_linear(CudaCases& cases, CudaLibraries& libraries, std::int64_t rows, std::int64_t inputs,
                std::int64_t outputs, LinearOptions options);
void add_linear_gelu(CudaCases& cases, CudaLibraries& libraries, std::int64_t rows, std::int64_t inputs,
                     std::int64_t outputs);
void add_gemm_cache(CudaCases& cases, CudaLibraries& libraries);

// cuda_optimizer_cases.cpp
void add_adamw(CudaCases& cases, std::int64_t count, std::int64_t step, bool in_pieces);
void add_sgd(CudaCases& cases, std::int64_t count, bool momentum);
void add_squared_norm(CudaCases& cases, std::int64_t count);
void add_clip_scale(CudaCases& cases, double squared_norm);

// cuda_norm_cases.cpp
template <class T>
void add_layer_norm(CudaCases& cases, std::int64_t rows, std::int64_t channels);
template <class T>
void add_rms_norm(CudaCases& cases, std::int64_t rows, std::int64_t channels);

// cuda_attention_cases.cpp. q, k and v are packed into one row.
template <class T>
void add_attention(CudaCases& cases, const AttentionShape& shape, double range);
void add_cudnn_attention(CudaCases& cases, CudaLibraries& libraries, const AttentionShape& shape, double range);
AttentionShape packed_attention(std::int64_t batch, std::int64_t time, std::int64_t heads, std::int64_t kv_heads,
                                std::int64_t head_size);

// cuda_shard_cases.cpp. `stride`: of the rows of one shard's logits.
template <class T>
void add_shard_cross_entropy(CudaCases& cases, std::int64_t rows, std::int64_t vocabulary, std::int64_t shards,
                             std::int64_t stride, double range);
template <class T>
void add_shard_embedding(CudaCases& cases, std::int64_t batch, std::int64_t time, std::int64_t channels,
                         std::int64_t vocabulary, std::int64_t shards);

}  // namespace stagecraft::kernels
