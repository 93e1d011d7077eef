// GELU in its tanh form (Hendrycks and Gimpel 2016, equation 3): y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
//
// In place is allowed: y may be x, dx may be dy.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

void gelu_forward(float* y,        // (count)
                  const float* x,  // (count)
                  std::int64_t count);

// Overwrites dx.
void gelu_input_gradient(float* dx,        // (count)
                         const float* dy,  // (count)
                         const float* x,   // (count), the input of the forward
                         std::int64_t count);

}  // namespace stagecraft::kernels::cpu
