// Rotary position embedding (Su et al. 2021) in the convention of Hugging Face's Llama ("rotate half"): in a head of
// size D the pair (x[i], x[i + D/2]) turns by the angle t * theta^(-2i/D) at position t.
//
// In place. In a packed (q | k | v) row the heads of q and k are neighbours, so one call with H + KV heads turns both.
// The table is the one that kernels::cpu::rope_table makes, copied to the device.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// Row n of x holds position n % time; it starts at x + n * row_stride and has `heads` heads of head_size, packed.
// REQUIRES: head_size is even.
template <class T>
void rope_forward(T* x,                // (B*T, heads, D), rows row_stride elements apart
                  const float* table,  // (T, D): at each position D/2 cosines, then D/2 sines
                  std::int64_t batch, std::int64_t time, std::int64_t heads, std::int64_t head_size,
                  std::int64_t row_stride, cudaStream_t stream);

// The inverse rotation, which is the gradient.
template <class T>
void rope_input_gradient(T* dx, const float* table, std::int64_t batch, std::int64_t time, std::int64_t heads,
                         std::int64_t head_size, std::int64_t row_stride, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
