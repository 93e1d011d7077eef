// The bias of a linear layer, where the matrix product does not add it itself, and its gradient.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// y = x + bias in every row. y may be x.
template <class T>
void bias_add(T* y,           // (N, C)
              const T* x,     // (N, C)
              const T* bias,  // (C)
              std::int64_t rows, std::int64_t channels, cudaStream_t stream);

std::int64_t bias_gradient_workspace_floats(std::int64_t rows, std::int64_t channels);

// d_bias = column sums of dy, in an order that depends on N and C alone.
template <class T>
void bias_gradient(float* d_bias,  // (C)
                   const T* dy,    // (N, C)
                   std::int64_t rows, std::int64_t channels, float* workspace, Accumulate accumulate,
                   cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
