// GELU in its tanh form (Hendrycks and Gimpel 2016, equation 3): y = z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))).
//
// z = x + bias: the bias of the linear layer before it costs nothing here, and about a tenth of the product's time as
// an epilogue there. In place is allowed: y may be x, dx may be dy.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

template <class T>
void gelu_forward(T* y,           // (N, C)
                  const T* x,     // (N, C)
                  const T* bias,  // (C), or null for none
                  std::int64_t rows, std::int64_t channels, cudaStream_t stream);

// Overwrites dx, the gradient of x and, row by row, of the bias.
template <class T>
void gelu_input_gradient(T* dx,          // (N, C)
                         const T* dy,    // (N, C)
                         const T* x,     // (N, C), the input of the forward
                         const T* bias,  // (C), or null for none
                         std::int64_t rows, std::int64_t channels, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
