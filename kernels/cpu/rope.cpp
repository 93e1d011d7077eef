#include "kernels/cpu/rope.hpp"

#include <cmath>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {
namespace {

// direction is 1 for the rotation and -1 for its inverse.
STAGECRAFT_VECTORISED void rotate(float* x, const float* table, float direction, std::int64_t batch, std::int64_t time,
                                  std::int64_t heads, std::int64_t head_size, std::int64_t row_stride) {
  const std::int64_t half = head_size / 2;
  for (std::int64_t n = 0; n < batch * time; ++n) {
    const float* cosines = table + (n % time) * head_size;
    const float* sines = cosines + half;
    for (std::int64_t h = 0; h < heads; ++h) {
      float* low = x + n * row_stride + h * head_size;
      float* high = low + half;
#pragma omp simd
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = low[i];
        const float b = high[i];
        const float sine = direction * sines[i];
        low[i] = a * cosines[i] - b * sine;
        high[i] = b * cosines[i] + a * sine;
      }
    }
  }
}

}  // namespace

void rope_table(float* table, std::int64_t time, std::int64_t head_size, double theta) {
  const std::int64_t half = head_size / 2;
  for (std::int64_t t = 0; t < time; ++t) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_size));
      const double angle = static_cast<double>(t) * frequency;
      table[t * head_size + i] = static_cast<float>(std::cos(angle));
      table[t * head_size + half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

void rope_forward(float* x, const float* table, std::int64_t batch, std::int64_t time, std::int64_t heads,
                  std::int64_t head_size, std::int64_t row_stride) {
  rotate(x, table, 1.0F, batch, time, heads, head_size, row_stride);
}

void rope_input_gradient(float* dx, const float* table, std::int64_t batch, std::int64_t time, std::int64_t heads,
                         std::int64_t head_size, std::int64_t row_stride) {
  rotate(dx, table, -1.0F, batch, time, heads, head_size, row_stride);
}

}  // namespace stagecraft::kernels::cpu
