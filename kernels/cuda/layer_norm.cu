#include "kernels/cuda/layer_norm.hpp"
#include "kernels/cuda/norm.cuh"

namespace stagecraft::kernels::cuda {
namespace {

template <class T, int width>
struct Terms {
  const T* dy;
  const T* x;
  const float* mean;
  const float* rstd;
  Index channels;
  __device__ void operator()(Index row, Index column, float (&sums)[2][width]) const {
    float gradients[width];
    float values[width];
    load(gradients, dy + row * channels + column);
    load(values, x + row * channels + column);
    const float m = mean[row];
    const float r = rstd[row];
#pragma unroll
    for (int i = 0; i < width; ++i) {
      sums[0][i] += gradients[i] * ((values[i] - m) * r);
      sums[1][i] += gradients[i];
    }
  }
};

}  // namespace

template <class T>
void layer_norm_forward(T* y, float* mean, float* rstd, const T* x, const T* gamma, const T* beta, Index rows,
                        Index channels, float epsilon, cudaStream_t stream) {
  norm_forward<true>(NormForward<T>{y, nullptr, mean, rstd, x, nullptr, gamma, beta, rows, channels, epsilon}, stream,
                     "layer_norm_forward");
}

template <class T>
void layer_norm_forward_residual(T* y, T* sum, float* mean, float* rstd, const T* x, const T* addend, const T* gamma,
                                 const T* beta, Index rows, Index channels, float epsilon, cudaStream_t stream) {
  norm_forward<true>(NormForward<T>{y, sum, mean, rstd, x, addend, gamma, beta, rows, channels, epsilon}, stream,
                     "layer_norm_forward_residual");
}

template <class T>
void layer_norm_input_gradient(T* dx, const T* residual, const T* dy, const T* x, const T* gamma, const float* mean,
                               const float* rstd, Index rows, Index channels, cudaStream_t stream) {
  norm_input_gradient<true>(NormInputGradient<T>{dx, residual, dy, x, gamma, mean, rstd, rows, channels}, stream,
                            "layer_norm_input_gradient");
}

Index layer_norm_weight_gradient_workspace_floats(Index rows, Index channels) {
  return column_sums_floats(rows, channels, 2);
}

template <class T>
void layer_norm_weight_gradient(float* d_gamma, float* d_beta, const T* dy, const T* x, const float* mean,
                                const float* rstd, Index rows, Index channels, float* workspace, Accumulate accumulate,
                                cudaStream_t stream) {
  constexpr int width = vector_width<T>;
  const char* const name = "layer_norm_weight_gradient";
  if (channels % width == 0) {
    column_sums<width, 2>({{d_gamma, d_beta}}, workspace, rows, channels, Terms<T, width>{dy, x, mean, rstd, channels},
                          accumulate, stream, name);
  } else {
    column_sums<1, 2>({{d_gamma, d_beta}}, workspace, rows, channels, Terms<T, 1>{dy, x, mean, rstd, channels},
                      accumulate, stream, name);
  }
}

#define STAGECRAFT_INSTANTIATE(T)                                                                                  \
  template void layer_norm_forward(T*, float*, float*, const T*, const T*, const T*, Index, Index, float,          \
                                   cudaStream_t);                                                                  \
  template void layer_norm_forward_residual(T*, T*, float*, float*, const T*, const T*, const T*, const T*, Index, \
                                            Index, float, cudaStream_t);                                           \
  template void layer_norm_input_gradient(T*, const T*, const T*, const T*, const T*, const float*, const float*,  \
                                          Index, Index, cudaStream_t);                                             \
  template void layer_norm_weight_gradient(float*, float*, const T*, const T*, const float*, const float*, Index,  \
                                           Index, float*, Accumulate, cudaStream_t);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
