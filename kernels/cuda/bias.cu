#include "kernels/cuda/bias.hpp"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/for_each.cuh"

namespace stagecraft::kernels::cuda {
namespace {

template <class T>
struct BiasAdd {
  T* y;
  const T* x;
  const T* bias;
  Index channels;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float sum[n];
    float addend[n];
    load(sum, x + i);
    load(addend, bias + i % channels);
#pragma unroll
    for (int k = 0; k < n; ++k) sum[k] += addend[k];
    store(y + i, sum);
  }
};

template <class T, int width>
struct Terms {
  const T* dy;
  Index channels;
  __device__ void operator()(Index row, Index column, float (&sums)[1][width]) const {
    float values[width];
    load(values, dy + row * channels + column);
#pragma unroll
    for (int i = 0; i < width; ++i) sums[0][i] += values[i];
  }
};

}  // namespace

template <class T>
void bias_add(T* y, const T* x, const T* bias, Index rows, Index channels, cudaStream_t stream) {
  const BiasAdd<T> body{y, x, bias, channels};
  if (channels % vector_width<T> == 0) {
    for_each<vector_width<T>>(rows * channels, body, stream, "bias_add");
  } else {
    for_each<1>(rows * channels, body, stream, "bias_add");
  }
}

Index bias_gradient_workspace_floats(Index rows, Index channels) { return column_sums_floats(rows, channels, 1); }

template <class T>
void bias_gradient(float* d_bias, const T* dy, Index rows, Index channels, float* workspace, Accumulate accumulate,
                   cudaStream_t stream) {
  constexpr int width = vector_width<T>;
  if (channels % width == 0) {
    column_sums<width, 1>({{d_bias}}, workspace, rows, channels, Terms<T, width>{dy, channels}, accumulate, stream,
                          "bias_gradient");
  } else {
    column_sums<1, 1>({{d_bias}}, workspace, rows, channels, Terms<T, 1>{dy, channels}, accumulate, stream,
                      "bias_gradient");
  }
}

template void bias_add(float*, const float*, const float*, Index, Index, cudaStream_t);
template void bias_add(Bf16*, const Bf16*, const Bf16*, Index, Index, cudaStream_t);
template void bias_gradient(float*, const float*, Index, Index, float*, Accumulate, cudaStream_t);
template void bias_gradient(float*, const Bf16*, Index, Index, float*, Accumulate, cudaStream_t);

}  // namespace stagecraft::kernels::cuda
