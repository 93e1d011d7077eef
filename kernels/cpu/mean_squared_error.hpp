// Mean-squared error of a regression head: the loss of a row is the mean over outputs of (prediction - target)^2.
//
// Losses are summed in double in row order.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Returns the mean loss of the rows. REQUIRES: rows > 0 and outputs > 0.
double mean_squared_error_loss(const float* predictions,  // (N, outputs)
                               const float* targets,      // (N, outputs)
                               std::int64_t rows, std::int64_t outputs);

// Returns the mean loss and overwrites predictions with gradient_scale * 2 (prediction - target) / outputs. As for
// cross-entropy, gradient_scale is 1 / (M * N) for the mean over a step of M micro-batches of N rows each.
double mean_squared_error_loss_and_gradient(float* predictions,    // (N, outputs), becomes the gradient
                                            const float* targets,  // (N, outputs)
                                            std::int64_t rows, std::int64_t outputs, float gradient_scale);

}  // namespace stagecraft::kernels::cpu
