#include "kernels/cpu/swiglu.hpp"

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {

STAGECRAFT_VECTORISED void swiglu_forward(float* y, const float* gate_up, std::int64_t rows, std::int64_t features) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* gate = gate_up + 2 * n * features;
    const float* up = gate + features;
    float* out = y + n * features;
#pragma omp simd
    for (std::int64_t f = 0; f < features; ++f) out[f] = gate[f] * fast_sigmoid(gate[f]) * up[f];
  }
}

STAGECRAFT_VECTORISED void swiglu_input_gradient(float* d_gate_up, const float* dy, const float* gate_up,
                                                 std::int64_t rows, std::int64_t features) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* gate = gate_up + 2 * n * features;
    const float* up = gate + features;
    const float* dy_row = dy + n * features;
    float* d_gate = d_gate_up + 2 * n * features;
    float* d_up = d_gate + features;
#pragma omp simd
    for (std::int64_t f = 0; f < features; ++f) {
      const float g = gate[f];
      const float u = up[f];
      const float s = fast_sigmoid(g);
      d_gate[f] = dy_row[f] * u * s * (1.0F + g * (1.0F - s));
      d_up[f] = dy_row[f] * g * s;
    }
  }
}

}  // namespace stagecraft::kernels::cpu
