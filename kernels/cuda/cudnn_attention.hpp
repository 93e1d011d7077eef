// Causal attention with grouped queries through cuDNN: the operation of attention.hpp for Bf16, at full speed.
//
// The graphs are those of flash attention (Dao et al. 2022) in cuDNN's composite form: one matrix product, scale, mask,
// softmax and another product forward; backward the five products that make dq, dk and dv from the saved logarithms.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/types.hpp"
#include "kernels/types.hpp"

namespace stagecraft::kernels::cuda {

enum class AttentionBackward {
  fast,           // dq is summed by atomics: its last bits differ from run to run
  deterministic,  // workspace of B*H*T*T*2 bytes instead of B*H*T*D*4, about an eighth slower
};

// Of one device and one thread. The plan of a shape is built at its first use, about a second of host time: prepare it
// before anything is timed or captured.
class CudnnAttention {
 public:
  explicit CudnnAttention(AttentionBackward backward);
  // Of the device with these properties, which need not be here: for prepare() alone.
  CudnnAttention(AttentionBackward backward, const std::string& device_properties);
  ~CudnnAttention();
  CudnnAttention(CudnnAttention&&) noexcept;
  CudnnAttention& operator=(CudnnAttention&&) noexcept;

  // JSON in cuDNN's form.
  std::string device_properties() const;

  // Builds the plans of the shape; returns the bytes of workspace that forward and backward need, aligned to 256.
  // Throws Error where cuDNN has no engine: head sizes other than multiples of 8 up to 128, devices before compute
  // capability 8.0, strides other than multiples of 8, slices of sequences.
  std::size_t prepare(const AttentionShape& shape);

  // Tensors, shapes and strides as in attention.hpp. REQUIRES: prepare(shape).
  void forward(Bf16* o, float* log_sum, const Bf16* q, const Bf16* k, const Bf16* v, const AttentionShape& shape,
               void* workspace, cudaStream_t stream);
  void input_gradient(Bf16* dq, Bf16* dk, Bf16* dv, const Bf16* d_o, const Bf16* o, const float* log_sum, const Bf16* q,
                      const Bf16* k, const Bf16* v, const AttentionShape& shape, void* workspace, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stagecraft::kernels::cuda
