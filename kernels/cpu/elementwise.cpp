#include "kernels/cpu/elementwise.hpp"

#include <cstring>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {

STAGECRAFT_VECTORISED void fill(float* y, float value, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = value;
}

void copy(float* y, const float* x, std::int64_t count) {
  if (y != x && count > 0) std::memcpy(y, x, static_cast<std::size_t>(count) * sizeof(float));
}

STAGECRAFT_VECTORISED void add(float* y, const float* a, const float* b, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

STAGECRAFT_VECTORISED void accumulate(float* y, const float* x, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] += x[i];
}

STAGECRAFT_VECTORISED void scale(float* y, float factor, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] *= factor;
}

}  // namespace stagecraft::kernels::cpu
