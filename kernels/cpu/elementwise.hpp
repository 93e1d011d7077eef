// Plain passes over a span of floats. Buffers of one call may be the same buffer, but must not overlap otherwise.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

void fill(float* y, float value, std::int64_t count);
void copy(float* y, const float* x, std::int64_t count);
void add(float* y, const float* a, const float* b, std::int64_t count);  // y = a + b
void accumulate(float* y, const float* x, std::int64_t count);           // y += x
void scale(float* y, float factor, std::int64_t count);                  // y *= factor

}  // namespace stagecraft::kernels::cpu
