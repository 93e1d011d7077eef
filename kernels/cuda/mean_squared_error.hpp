// Mean-squared error of a regression head: the loss of a row is the mean over outputs of (prediction - target)^2.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

template <class T>
void mean_squared_error_loss(float* losses,         // (N)
                             const T* predictions,  // (N, outputs)
                             const float* targets,  // (N, outputs)
                             std::int64_t rows, std::int64_t outputs, cudaStream_t stream);

// Also overwrites predictions with gradient_scale * 2 (prediction - target) / outputs.
template <class T>
void mean_squared_error_loss_and_gradient(float* losses,         // (N)
                                          T* predictions,        // (N, outputs), becomes the gradient
                                          const float* targets,  // (N, outputs)
                                          std::int64_t rows, std::int64_t outputs, float gradient_scale,
                                          cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
