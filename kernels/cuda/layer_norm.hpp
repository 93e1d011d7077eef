// LayerNorm (Ba et al. 2016) over the last dimension: y = (x - mean) * rstd * gamma + beta, one mean and rstd a row.
//
// The variance is the mean of squared deviations (biased), as everywhere in transformers. A row may have 16384 elements
// as Bf16, 8192 as float; 4096 where C is no multiple of a 16-byte vector. Longer rows throw Error.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// Saves mean and rstd = 1 / sqrt(variance + epsilon) for the backward.
template <class T>
void layer_norm_forward(T* y,            // (N, C)
                        float* mean,     // (N)
                        float* rstd,     // (N)
                        const T* x,      // (N, C)
                        const T* gamma,  // (C)
                        const T* beta,   // (C)
                        std::int64_t rows, std::int64_t channels, float epsilon, cudaStream_t stream);

// sum = x + addend, y = LayerNorm(sum): the residual connection before a norm, in one pass. sum may be x or addend.
template <class T>
void layer_norm_forward_residual(T* y,             // (N, C)
                                 T* sum,           // (N, C)
                                 float* mean,      // (N)
                                 float* rstd,      // (N)
                                 const T* x,       // (N, C)
                                 const T* addend,  // (N, C)
                                 const T* gamma,   // (C)
                                 const T* beta,    // (C)
                                 std::int64_t rows, std::int64_t channels, float epsilon, cudaStream_t stream);

// dx = residual + the gradient through the norm. dx may be residual or dy.
template <class T>
void layer_norm_input_gradient(T* dx,              // (N, C)
                               const T* residual,  // (N, C), the gradient over the residual connection; null for none
                               const T* dy,        // (N, C)
                               const T* x,         // (N, C)
                               const T* gamma,     // (C)
                               const float* mean,  // (N)
                               const float* rstd,  // (N)
                               std::int64_t rows, std::int64_t channels, cudaStream_t stream);

std::int64_t layer_norm_weight_gradient_workspace_floats(std::int64_t rows, std::int64_t channels);

template <class T>
void layer_norm_weight_gradient(float* d_gamma,     // (C)
                                float* d_beta,      // (C)
                                const T* dy,        // (N, C)
                                const T* x,         // (N, C)
                                const float* mean,  // (N)
                                const float* rstd,  // (N)
                                std::int64_t rows, std::int64_t channels, float* workspace, Accumulate accumulate,
                                cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
