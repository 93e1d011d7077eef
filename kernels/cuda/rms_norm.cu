#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/rms_norm.hpp"

namespace stagecraft::kernels::cuda {
namespace {

template <class T, int width>
struct Terms {
  const T* dy;
  const T* x;
  const float* rstd;
  Index channels;
  __device__ void operator()(Index row, Index column, float (&sums)[1][width]) const {
    float gradients[width];
    float values[width];
    load(gradients, dy + row * channels + column);
    load(values, x + row * channels + column);
    const float r = rstd[row];
#pragma unroll
    for (int i = 0; i < width; ++i) sums[0][i] += gradients[i] * (values[i] * r);
  }
};

}  // namespace

template <class T>
void rms_norm_forward(T* y, float* rstd, const T* x, const T* gamma, Index rows, Index channels, float epsilon,
                      cudaStream_t stream) {
  norm_forward<false>(NormForward<T>{y, nullptr, nullptr, rstd, x, nullptr, gamma, nullptr, rows, channels, epsilon},
                      stream, "rms_norm_forward");
}

template <class T>
void rms_norm_forward_residual(T* y, T* sum, float* rstd, const T* x, const T* addend, const T* gamma, Index rows,
                               Index channels, float epsilon, cudaStream_t stream) {
  norm_forward<false>(NormForward<T>{y, sum, nullptr, rstd, x, addend, gamma, nullptr, rows, channels, epsilon}, stream,
                      "rms_norm_forward_residual");
}

template <class T>
void rms_norm_input_gradient(T* dx, const T* residual, const T* dy, const T* x, const T* gamma, const float* rstd,
                             Index rows, Index channels, cudaStream_t stream) {
  norm_input_gradient<false>(NormInputGradient<T>{dx, residual, dy, x, gamma, nullptr, rstd, rows, channels}, stream,
                             "rms_norm_input_gradient");
}

Index rms_norm_weight_gradient_workspace_floats(Index rows, Index channels) {
  return column_sums_floats(rows, channels, 1);
}

template <class T>
void rms_norm_weight_gradient(float* d_gamma, const T* dy, const T* x, const float* rstd, Index rows, Index channels,
                              float* workspace, Accumulate accumulate, cudaStream_t stream) {
  constexpr int width = vector_width<T>;
  const char* const name = "rms_norm_weight_gradient";
  if (channels % width == 0) {
    column_sums<width, 1>({{d_gamma}}, workspace, rows, channels, Terms<T, width>{dy, x, rstd, channels}, accumulate,
                          stream, name);
  } else {
    column_sums<1, 1>({{d_gamma}}, workspace, rows, channels, Terms<T, 1>{dy, x, rstd, channels}, accumulate, stream,
                      name);
  }
}

#define STAGECRAFT_INSTANTIATE(T)                                                                                    \
  template void rms_norm_forward(T*, float*, const T*, const T*, Index, Index, float, cudaStream_t);                 \
  template void rms_norm_forward_residual(T*, T*, float*, const T*, const T*, const T*, Index, Index, float,         \
                                          cudaStream_t);                                                             \
  template void rms_norm_input_gradient(T*, const T*, const T*, const T*, const T*, const float*, Index, Index,      \
                                        cudaStream_t);                                                               \
  template void rms_norm_weight_gradient(float*, const T*, const T*, const float*, Index, Index, float*, Accumulate, \
                                         cudaStream_t);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
