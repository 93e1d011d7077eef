// SwiGLU (Shazeer 2020): y = silu(gate) * up with silu(z) = z / (1 + exp(-z)).
//
// gate and up are the two halves of a row of one buffer, the output of one fused linear layer whose weight is the
// gate's rows followed by the up's rows.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

template <class T>
void swiglu_forward(T* y,              // (N, F)
                    const T* gate_up,  // (N, 2F): F gates, then F ups
                    std::int64_t rows, std::int64_t features, cudaStream_t stream);

// Overwrites d_gate_up, which may be the same buffer as gate_up.
template <class T>
void swiglu_input_gradient(T* d_gate_up,      // (N, 2F)
                           const T* dy,       // (N, F)
                           const T* gate_up,  // (N, 2F)
                           std::int64_t rows, std::int64_t features, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
