#include "kernels/cpu/rms_norm.hpp"

#include <cmath>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {
namespace {

// With xhat = x * rstd and g = dy * gamma: dx = rstd * (g - xhat * mean(g * xhat)).
template <bool add>
STAGECRAFT_INLINE void input_gradient(float* dx, const float* dy, const float* x, const float* gamma, const float* rstd,
                                      std::int64_t rows, std::int64_t channels) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    const float* dy_row = dy + n * channels;
    float* dx_row = dx + n * channels;
    const float r = rstd[n];
    float g_x_sum = 0.0F;
#pragma omp simd reduction(+ : g_x_sum)
    for (std::int64_t c = 0; c < channels; ++c) g_x_sum += dy_row[c] * gamma[c] * x_row[c];
    const float shrink = g_x_sum * r * r / static_cast<float>(channels);
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const float gradient = r * (dy_row[c] * gamma[c] - x_row[c] * shrink);
      dx_row[c] = add ? dx_row[c] + gradient : gradient;
    }
  }
}

}  // namespace

STAGECRAFT_VECTORISED void rms_norm_forward(float* y, float* rstd, const float* x, const float* gamma,
                                            std::int64_t rows, std::int64_t channels, float epsilon) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    float* y_row = y + n * channels;
    float squares = 0.0F;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t c = 0; c < channels; ++c) squares += x_row[c] * x_row[c];
    const float r = 1.0F / std::sqrt(squares / static_cast<float>(channels) + epsilon);
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) y_row[c] = x_row[c] * r * gamma[c];
    rstd[n] = r;
  }
}

STAGECRAFT_VECTORISED void rms_norm_input_gradient(float* dx, const float* dy, const float* x, const float* gamma,
                                                   const float* rstd, std::int64_t rows, std::int64_t channels) {
  input_gradient<false>(dx, dy, x, gamma, rstd, rows, channels);
}

STAGECRAFT_VECTORISED void rms_norm_input_gradient_add(float* dx, const float* dy, const float* x, const float* gamma,
                                                       const float* rstd, std::int64_t rows, std::int64_t channels) {
  input_gradient<true>(dx, dy, x, gamma, rstd, rows, channels);
}

STAGECRAFT_VECTORISED void rms_norm_weight_gradient(float* d_gamma, const float* dy, const float* x, const float* rstd,
                                                    std::int64_t rows, std::int64_t channels) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    const float* dy_row = dy + n * channels;
    const float r = rstd[n];
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) d_gamma[c] += dy_row[c] * x_row[c] * r;
  }
}

}  // namespace stagecraft::kernels::cpu
