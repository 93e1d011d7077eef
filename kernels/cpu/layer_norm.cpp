#include "kernels/cpu/layer_norm.hpp"

#include <cmath>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {
namespace {

// With xhat = (x - mean) * rstd and g = dy * gamma: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)).
template <bool add>
STAGECRAFT_INLINE void input_gradient(float* dx, const float* dy, const float* x, const float* gamma, const float* mean,
                                      const float* rstd, std::int64_t rows, std::int64_t channels) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    const float* dy_row = dy + n * channels;
    float* dx_row = dx + n * channels;
    const float m = mean[n];
    const float r = rstd[n];
    float g_sum = 0.0F;
    float g_xhat_sum = 0.0F;
#pragma omp simd reduction(+ : g_sum, g_xhat_sum)
    for (std::int64_t c = 0; c < channels; ++c) {
      const float g = dy_row[c] * gamma[c];
      g_sum += g;
      g_xhat_sum += g * ((x_row[c] - m) * r);
    }
    const float g_mean = g_sum / static_cast<float>(channels);
    const float g_xhat_mean = g_xhat_sum / static_cast<float>(channels);
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const float gradient = r * (dy_row[c] * gamma[c] - g_mean - (x_row[c] - m) * r * g_xhat_mean);
      dx_row[c] = add ? dx_row[c] + gradient : gradient;
    }
  }
}

}  // namespace

STAGECRAFT_VECTORISED void layer_norm_forward(float* y, float* mean, float* rstd, const float* x, const float* gamma,
                                              const float* beta, std::int64_t rows, std::int64_t channels,
                                              float epsilon) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    float* y_row = y + n * channels;
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t c = 0; c < channels; ++c) sum += x_row[c];
    const float m = sum / static_cast<float>(channels);
    float squares = 0.0F;
#pragma omp simd reduction(+ : squares)
    for (std::int64_t c = 0; c < channels; ++c) squares += (x_row[c] - m) * (x_row[c] - m);
    const float r = 1.0F / std::sqrt(squares / static_cast<float>(channels) + epsilon);
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) y_row[c] = (x_row[c] - m) * r * gamma[c] + beta[c];
    mean[n] = m;
    rstd[n] = r;
  }
}

STAGECRAFT_VECTORISED void layer_norm_input_gradient(float* dx, const float* dy, const float* x, const float* gamma,
                                                     const float* mean, const float* rstd, std::int64_t rows,
                                                     std::int64_t channels) {
  input_gradient<false>(dx, dy, x, gamma, mean, rstd, rows, channels);
}

STAGECRAFT_VECTORISED void layer_norm_input_gradient_add(float* dx, const float* dy, const float* x, const float* gamma,
                                                         const float* mean, const float* rstd, std::int64_t rows,
                                                         std::int64_t channels) {
  input_gradient<true>(dx, dy, x, gamma, mean, rstd, rows, channels);
}

STAGECRAFT_VECTORISED void layer_norm_weight_gradient(float* d_gamma, float* d_beta, const float* dy, const float* x,
                                                      const float* mean, const float* rstd, std::int64_t rows,
                                                      std::int64_t channels) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * channels;
    const float* dy_row = dy + n * channels;
    const float m = mean[n];
    const float r = rstd[n];
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      d_gamma[c] += dy_row[c] * ((x_row[c] - m) * r);
      d_beta[c] += dy_row[c];
    }
  }
}

}  // namespace stagecraft::kernels::cpu
