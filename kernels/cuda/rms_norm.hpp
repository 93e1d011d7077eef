// RMSNorm (Zhang and Sennrich 2019) over the last dimension: y = x * rstd * gamma with rstd = 1 / sqrt(mean(x^2) +
// epsilon).
//
// The longest row: as layer_norm.hpp.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// Saves rstd for the backward.
template <class T>
void rms_norm_forward(T* y,            // (N, C)
                      float* rstd,     // (N)
                      const T* x,      // (N, C)
                      const T* gamma,  // (C)
                      std::int64_t rows, std::int64_t channels, float epsilon, cudaStream_t stream);

// sum = x + addend, y = RMSNorm(sum): the residual connection before a norm, in one pass. sum may be x or addend.
template <class T>
void rms_norm_forward_residual(T* y,             // (N, C)
                               T* sum,           // (N, C)
                               float* rstd,      // (N)
                               const T* x,       // (N, C)
                               const T* addend,  // (N, C)
                               const T* gamma,   // (C)
                               std::int64_t rows, std::int64_t channels, float epsilon, cudaStream_t stream);

// dx = residual + the gradient through the norm. dx may be residual or dy.
template <class T>
void rms_norm_input_gradient(T* dx,              // (N, C)
                             const T* residual,  // (N, C), the gradient over the residual connection; null for none
                             const T* dy,        // (N, C)
                             const T* x,         // (N, C)
                             const T* gamma,     // (C)
                             const float* rstd,  // (N)
                             std::int64_t rows, std::int64_t channels, cudaStream_t stream);

std::int64_t rms_norm_weight_gradient_workspace_floats(std::int64_t rows, std::int64_t channels);

template <class T>
void rms_norm_weight_gradient(float* d_gamma,     // (C)
                              const T* dy,        // (N, C)
                              const T* x,         // (N, C)
                              const float* rstd,  // (N)
                              std::int64_t rows, std::int64_t channels, float* workspace, Accumulate accumulate,
                              cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
