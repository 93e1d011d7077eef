// Optimizers over one flat span of parameters, and the norm that gradient clipping needs.
//
// Element i of the result depends only on element i of the inputs: a span may be cut anywhere without changing bits.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Loshchilov and Hutter 2019, algorithm 2, with PyTorch's placement of epsilon.
struct AdamW {
  float learning_rate;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float epsilon = 1e-8F;
  float weight_decay = 0.0F;  // decoupled: w -= learning_rate * weight_decay * w
};

// `step` counts from 1 and corrects the bias of m and v. Gradients are multiplied by gradient_scale as they are read
// (clipping without another pass).
void adamw_step(float* w,         // (count)
                float* m,         // (count), first moment, zero before step 1
                float* v,         // (count), second moment, zero before step 1
                const float* dw,  // (count)
                std::int64_t count, const AdamW& options, std::int64_t step, float gradient_scale);

struct Sgd {
  float learning_rate;
  float momentum = 0.0F;
  float weight_decay = 0.0F;  // added to the gradient, as in PyTorch
};

// velocity = momentum * velocity + gradient; w -= learning_rate * velocity. velocity may be null if momentum is 0.
void sgd_step(float* w,         // (count)
              float* velocity,  // (count), zero before the first step, or null
              const float* dw,  // (count)
              std::int64_t count, const Sgd& options, float gradient_scale);

// Sum of squares, accumulated in double.
double squared_norm(const float* x,  // (count)
                    std::int64_t count);

}  // namespace stagecraft::kernels::cpu
