#include "kernels/cpu/gelu.hpp"

#include "kernels/cpu/vector_math.hpp"

// (1 + tanh(u)) / 2 = sigmoid(2u), so y = x * sigmoid(2u) with 2u = two_k * (x + cubic * x^3): one exponential an
// element and no cancellation for large negative x.

namespace stagecraft::kernels::cpu {
namespace {
constexpr float two_k = 1.59576912F;  // 2 sqrt(2 / pi)
constexpr float cubic = 0.044715F;
}  // namespace

STAGECRAFT_VECTORISED void gelu_forward(float* y, const float* x, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float z = x[i];
    y[i] = z * fast_sigmoid(two_k * z * (1.0F + cubic * z * z));
  }
}

STAGECRAFT_VECTORISED void gelu_input_gradient(float* dx, const float* dy, const float* x, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float z = x[i];
    const float s = fast_sigmoid(two_k * z * (1.0F + cubic * z * z));
    const float slope = two_k * (1.0F + 3.0F * cubic * z * z);
    dx[i] = dy[i] * (s + z * s * (1.0F - s) * slope);
  }
}

}  // namespace stagecraft::kernels::cpu
