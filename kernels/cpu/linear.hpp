// Linear layer y = x W^T + b on OpenBLAS sgemm. W is stored (outputs, inputs), as in PyTorch.
//
// The head of a language model with tied weights is the same operation with the token table as W.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Every later call of these operations uses this many threads inside OpenBLAS, whichever thread calls. The setting is
// OpenBLAS's own and holds for the process: call it once, before the ranks start. One thread a caller is what a runtime
// with a thread a rank wants; it also makes results the same bits on whichever thread they are computed.
// REQUIRES: threads >= 1.
void set_blas_threads_per_caller(int threads);

// Overwrites y. bias may be null.
void linear_forward(float* y,           // (N, outputs)
                    const float* x,     // (N, inputs)
                    const float* w,     // (outputs, inputs)
                    const float* bias,  // (outputs) or null
                    std::int64_t rows, std::int64_t inputs, std::int64_t outputs);

// y += x W^T + b: the layer and the residual connection around it in one pass.
void linear_forward_add(float* y, const float* x, const float* w, const float* bias, std::int64_t rows,
                        std::int64_t inputs, std::int64_t outputs);

// dx = dy W, overwritten.
void linear_input_gradient(float* dx,        // (N, inputs)
                           const float* dy,  // (N, outputs)
                           const float* w,   // (outputs, inputs)
                           std::int64_t rows, std::int64_t inputs, std::int64_t outputs);

// dx += dy W.
void linear_input_gradient_add(float* dx, const float* dy, const float* w, std::int64_t rows, std::int64_t inputs,
                               std::int64_t outputs);

// Accumulates: dw += dy^T x and, unless d_bias is null, d_bias += column sums of dy.
void linear_weight_gradient(float* dw,        // (outputs, inputs)
                            float* d_bias,    // (outputs) or null
                            const float* dy,  // (N, outputs)
                            const float* x,   // (N, inputs)
                            std::int64_t rows, std::int64_t inputs, std::int64_t outputs);

}  // namespace stagecraft::kernels::cpu
