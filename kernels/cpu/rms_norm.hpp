// RMSNorm (Zhang and Sennrich 2019) over the last dimension: y = x * rstd * gamma with rstd = 1 / sqrt(mean(x^2) +
// epsilon).
//
// dx may be the same buffer as dy.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Saves rstd for the backward.
void rms_norm_forward(float* y,            // (N, C)
                      float* rstd,         // (N)
                      const float* x,      // (N, C)
                      const float* gamma,  // (C)
                      std::int64_t rows, std::int64_t channels, float epsilon);

// Overwrites dx.
void rms_norm_input_gradient(float* dx,           // (N, C)
                             const float* dy,     // (N, C)
                             const float* x,      // (N, C)
                             const float* gamma,  // (C)
                             const float* rstd,   // (N)
                             std::int64_t rows, std::int64_t channels);

// Adds to dx, which holds the gradient that arrived over the residual connection.
void rms_norm_input_gradient_add(float* dx, const float* dy, const float* x, const float* gamma, const float* rstd,
                                 std::int64_t rows, std::int64_t channels);

// Accumulates into d_gamma.
void rms_norm_weight_gradient(float* d_gamma,     // (C)
                              const float* dy,    // (N, C)
                              const float* x,     // (N, C)
                              const float* rstd,  // (N)
                              std::int64_t rows, std::int64_t channels);

}  // namespace stagecraft::kernels::cpu
