#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/mean_squared_error.hpp"

namespace stagecraft::kernels::cuda {
namespace {

// Regression heads have a handful of outputs: a thread takes a row.
template <bool gradient, class T>
struct Row {
  float* losses;
  T* predictions;
  const float* targets;
  Index outputs;
  float gradient_scale;
  __device__ void operator()(Index row, Constant<1>) const {
    const float inverse = 1.0F / static_cast<float>(outputs);
    float sum = 0.0F;
    for (Index i = row * outputs; i < (row + 1) * outputs; ++i) {
      const float difference = widen(predictions[i]) - targets[i];
      sum += difference * difference;
      if constexpr (gradient) predictions[i] = narrow<T>(gradient_scale * 2.0F * inverse * difference);
    }
    losses[row] = sum * inverse;
  }
};

}  // namespace

template <class T>
void mean_squared_error_loss(float* losses, const T* predictions, const float* targets, Index rows, Index outputs,
                             cudaStream_t stream) {
  for_each<1>(rows, Row<false, const T>{losses, predictions, targets, outputs, 0.0F}, stream,
              "mean_squared_error_loss");
}

template <class T>
void mean_squared_error_loss_and_gradient(float* losses, T* predictions, const float* targets, Index rows,
                                          Index outputs, float gradient_scale, cudaStream_t stream) {
  for_each<1>(rows, Row<true, T>{losses, predictions, targets, outputs, gradient_scale}, stream,
              "mean_squared_error_loss_and_gradient");
}

#define STAGECRAFT_INSTANTIATE(T)                                                                    \
  template void mean_squared_error_loss(float*, const T*, const float*, Index, Index, cudaStream_t); \
  template void mean_squared_error_loss_and_gradient(float*, T*, const float*, Index, Index, float, cudaStream_t);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
