#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/rope.hpp"

namespace stagecraft::kernels::cuda {
namespace {

// Element i counts pairs: (B*T, heads, D/2).
template <class T>
struct Rotate {
  T* x;
  const float* table;
  float direction;  // 1 for the rotation, -1 for its inverse
  Index time, heads, half, row_stride;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    const Index pair = i % half;
    const Index head = i / half % heads;
    const Index row = i / (half * heads);
    T* const low_at = x + row * row_stride + head * 2 * half + pair;
    const float* const cosines = table + row % time * 2 * half + pair;
    float low[n];
    float high[n];
    float cosine[n];
    float sine[n];
    load(low, low_at);
    load(high, low_at + half);
    load(cosine, cosines);
    load(sine, cosines + half);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const float a = low[k];
      const float b = high[k];
      const float s = direction * sine[k];
      low[k] = a * cosine[k] - b * s;
      high[k] = b * cosine[k] + a * s;
    }
    store(low_at, low);
    store(low_at + half, high);
  }
};

template <class T>
void rotate(T* x, const float* table, float direction, Index batch, Index time, Index heads, Index head_size,
            Index row_stride, cudaStream_t stream, const char* name) {
  constexpr int width = vector_width<T>;
  const Rotate<T> body{x, table, direction, time, heads, head_size / 2, row_stride};
  const Index pairs = batch * time * heads * (head_size / 2);
  if (head_size / 2 % width == 0 && row_stride % width == 0) {
    for_each<width>(pairs, body, stream, name);
  } else {
    for_each<1>(pairs, body, stream, name);
  }
}

}  // namespace

template <class T>
void rope_forward(T* x, const float* table, Index batch, Index time, Index heads, Index head_size, Index row_stride,
                  cudaStream_t stream) {
  rotate(x, table, 1.0F, batch, time, heads, head_size, row_stride, stream, "rope_forward");
}

template <class T>
void rope_input_gradient(T* dx, const float* table, Index batch, Index time, Index heads, Index head_size,
                         Index row_stride, cudaStream_t stream) {
  rotate(dx, table, -1.0F, batch, time, heads, head_size, row_stride, stream, "rope_input_gradient");
}

template void rope_forward(float*, const float*, Index, Index, Index, Index, Index, cudaStream_t);
template void rope_forward(Bf16*, const float*, Index, Index, Index, Index, Index, cudaStream_t);
template void rope_input_gradient(float*, const float*, Index, Index, Index, Index, Index, cudaStream_t);
template void rope_input_gradient(Bf16*, const float*, Index, Index, Index, Index, Index, cudaStream_t);

}  // namespace stagecraft::kernels::cuda
