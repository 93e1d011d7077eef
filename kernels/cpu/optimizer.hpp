// Optimizers over one flat span of parameters, and the norm that gradient clipping needs.
//
// Element i of the result depends only on element i of the inputs: a span may be cut anywhere without changing bits.
#pragma once

#include <cstdint>

#include "kernels/types.hpp"

namespace stagecraft::kernels::cpu {

using kernels::AdamW;
using kernels::Sgd;

// `step` counts from 1 and corrects the bias of m and v. Gradients are multiplied by gradient_scale as they are read
// (clipping without another pass).
void adamw_step(float* w,         // (count)
                float* m,         // (count), first moment, zero before step 1
                float* v,         // (count), second moment, zero before step 1
                const float* dw,  // (count)
                std::int64_t count, const AdamW& options, std::int64_t step, float gradient_scale);

// velocity = momentum * velocity + gradient; w -= learning_rate * velocity. velocity may be null if momentum is 0.
void sgd_step(float* w,         // (count)
              float* velocity,  // (count), zero before the first step, or null
              const float* dw,  // (count)
              std::int64_t count, const Sgd& options, float gradient_scale);

// Sum of squares, accumulated in double.
double squared_norm(const float* x,  // (count)
                    std::int64_t count);

}  // namespace stagecraft::kernels::cpu
