// SwiGLU (Shazeer 2020): y = silu(gate) * up with silu(z) = z / (1 + exp(-z)).
//
// gate and up are the two halves of a row of one buffer, the output of one fused linear layer whose weight is the
// gate's rows followed by the up's rows.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

void swiglu_forward(float* y,              // (N, F)
                    const float* gate_up,  // (N, 2F): F gates, then F ups
                    std::int64_t rows, std::int64_t features);

// Overwrites d_gate_up, which may be the same buffer as gate_up.
void swiglu_input_gradient(float* d_gate_up,      // (N, 2F)
                           const float* dy,       // (N, F)
                           const float* gate_up,  // (N, 2F)
                           std::int64_t rows, std::int64_t features);

}  // namespace stagecraft::kernels::cpu
