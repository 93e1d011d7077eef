// Softmax and cross-entropy in one: the loss of a row is log(sum(exp(logits))) - logits[target].
//
// Losses are summed in double in row order.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Returns the mean loss of the rows. REQUIRES: rows > 0; every target is in [0, V).
double cross_entropy_loss(const float* logits,          // (N, V)
                          const std::int32_t* targets,  // (N)
                          std::int64_t rows, std::int64_t vocabulary);

// Returns the mean loss and overwrites logits with gradient_scale * (softmax - one_hot(target)). For the gradient of
// the mean over a step of M micro-batches of N rows each, gradient_scale is 1 / (M * N).
double cross_entropy_loss_and_gradient(float* logits,                // (N, V), becomes dlogits
                                       const std::int32_t* targets,  // (N)
                                       std::int64_t rows, std::int64_t vocabulary, float gradient_scale);

}  // namespace stagecraft::kernels::cpu
