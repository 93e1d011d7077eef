#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/for_each.cuh"

namespace stagecraft::kernels::cuda {
namespace {

template <class To, class From>
struct Cast {
  To* y;
  const From* x;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float values[n];
    load(values, x + i);
    store(y + i, values);
  }
};

// Bits pass unchanged, NaN included.
template <class T>
struct Copy {
  T* y;
  const T* x;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    store<n>(y + i, load<n>(x + i));
  }
};

template <class T>
struct Add {
  T* y;
  const T* a;
  const T* b;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float sum[n];
    float addend[n];
    load(sum, a + i);
    load(addend, b + i);
#pragma unroll
    for (int k = 0; k < n; ++k) sum[k] += addend[k];
    store(y + i, sum);
  }
};

template <class T>
struct AddTo {
  float* y;
  const T* x;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float sum[n];
    float addend[n];
    load(sum, y + i);
    load(addend, x + i);
#pragma unroll
    for (int k = 0; k < n; ++k) sum[k] += addend[k];
    store(y + i, sum);
  }
};

struct Scale {
  float* y;
  float factor;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float values[n];
    load(values, y + i);
#pragma unroll
    for (int k = 0; k < n; ++k) values[k] *= factor;
    store(y + i, values);
  }
};

}  // namespace

void cast(Bf16* y, const float* x, Index count, cudaStream_t stream) {
  for_each<8>(count, Cast<Bf16, float>{y, x}, stream, "cast");
}

void cast(float* y, const Bf16* x, Index count, cudaStream_t stream) {
  for_each<8>(count, Cast<float, Bf16>{y, x}, stream, "cast");
}

template <class T>
void copy(T* y, const T* x, Index count, cudaStream_t stream) {
  for_each<vector_width<T>>(count, Copy<T>{y, x}, stream, "copy");
}
template void copy(float*, const float*, Index, cudaStream_t);
template void copy(Bf16*, const Bf16*, Index, cudaStream_t);

template <class T>
void add(T* y, const T* a, const T* b, Index count, cudaStream_t stream) {
  for_each<vector_width<T>>(count, Add<T>{y, a, b}, stream, "add");
}
template void add(float*, const float*, const float*, Index, cudaStream_t);
template void add(Bf16*, const Bf16*, const Bf16*, Index, cudaStream_t);

void accumulate(float* y, const float* x, Index count, cudaStream_t stream) {
  for_each<4>(count, AddTo<float>{y, x}, stream, "accumulate");
}

void accumulate(float* y, const Bf16* x, Index count, cudaStream_t stream) {
  for_each<8>(count, AddTo<Bf16>{y, x}, stream, "accumulate");
}

void scale(float* y, float factor, Index count, cudaStream_t stream) {
  for_each<4>(count, Scale{y, factor}, stream, "scale");
}

}  // namespace stagecraft::kernels::cuda
