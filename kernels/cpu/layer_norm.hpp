// LayerNorm (Ba et al. 2016) over the last dimension: y = (x - mean) * rstd * gamma + beta, one mean and rstd a row.
//
// The variance is the mean of squared deviations (biased), as everywhere in transformers. dx may be the same buffer as
// dy.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Saves mean and rstd = 1 / sqrt(variance + epsilon) for the backward.
void layer_norm_forward(float* y,            // (N, C)
                        float* mean,         // (N)
                        float* rstd,         // (N)
                        const float* x,      // (N, C)
                        const float* gamma,  // (C)
                        const float* beta,   // (C)
                        std::int64_t rows, std::int64_t channels, float epsilon);

// Overwrites dx.
void layer_norm_input_gradient(float* dx,           // (N, C)
                               const float* dy,     // (N, C)
                               const float* x,      // (N, C)
                               const float* gamma,  // (C)
                               const float* mean,   // (N)
                               const float* rstd,   // (N)
                               std::int64_t rows, std::int64_t channels);

// Adds to dx, which holds the gradient that arrived over the residual connection.
void layer_norm_input_gradient_add(float* dx, const float* dy, const float* x, const float* gamma, const float* mean,
                                   const float* rstd, std::int64_t rows, std::int64_t channels);

// Accumulates into d_gamma and d_beta.
void layer_norm_weight_gradient(float* d_gamma,     // (C)
                                float* d_beta,      // (C)
                                const float* dy,    // (N, C)
                                const float* x,     // (N, C)
                                const float* mean,  // (N)
                                const float* rstd,  // (N)
                                std::int64_t rows, std::int64_t channels);

}  // namespace stagecraft::kernels::cpu
