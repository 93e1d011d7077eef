#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/gelu.hpp"

namespace stagecraft::kernels::cuda {
namespace {

constexpr float cubic = 0.044715F;
constexpr float twice_root = 1.5957691216057308F;  // 2 sqrt(2/pi)

// (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), which keeps its relative precision where tanh is close to -1.
__device__ float half_one_plus_tanh(float x) { return 1.0F / (1.0F + __expf(-twice_root * (x + cubic * x * x * x))); }

template <class T, int n>
__device__ void load_biased(float (&z)[n], const T* x, const T* bias, Index i, unsigned channels) {
  load(z, x + i);
  if (bias == nullptr) return;
  float addend[n];
  load(addend, bias + i % channels);
#pragma unroll
  for (int k = 0; k < n; ++k) z[k] += addend[k];
}

template <class T>
struct Forward {
  T* y;
  const T* x;
  const T* bias;
  unsigned channels;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float z[n];
    load_biased(z, x, bias, i, channels);
#pragma unroll
    for (int k = 0; k < n; ++k) z[k] *= half_one_plus_tanh(z[k]);
    store(y + i, z);
  }
};

// With s = (1 + tanh(u)) / 2: dy/dz = s + z ds/dz, ds/dz = 2 s (1 - s) du/dz.
template <class T>
struct InputGradient {
  T* dx;
  const T* dy;
  const T* x;
  const T* bias;
  unsigned channels;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float z[n];
    float gradients[n];
    load(gradients, dy + i);
    load_biased(z, x, bias, i, channels);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const float s = half_one_plus_tanh(z[k]);
      gradients[k] *= s + z[k] * (s * (1.0F - s)) * (twice_root * (1.0F + 3.0F * cubic * z[k] * z[k]));
    }
    store(dx + i, gradients);
  }
};

// Vectors may reach over the end of a row unless they must find their bias.
template <class T, class Body>
void for_each_biased(Index rows, const Body& body, cudaStream_t stream, const char* name) {
  const Index count = rows * body.channels;
  if (body.bias == nullptr || body.channels % vector_width<T> == 0) {
    for_each<vector_width<T>>(count, body, stream, name);
  } else {
    for_each<1>(count, body, stream, name);
  }
}

}  // namespace

template <class T>
void gelu_forward(T* y, const T* x, const T* bias, Index rows, Index channels, cudaStream_t stream) {
  for_each_biased<T>(rows, Forward<T>{y, x, bias, static_cast<unsigned>(channels)}, stream, "gelu_forward");
}

template <class T>
void gelu_input_gradient(T* dx, const T* dy, const T* x, const T* bias, Index rows, Index channels,
                         cudaStream_t stream) {
  for_each_biased<T>(rows, InputGradient<T>{dx, dy, x, bias, static_cast<unsigned>(channels)}, stream,
                     "gelu_input_gradient");
}

#define STAGECRAFT_INSTANTIATE(T)                                                 \
  template void gelu_forward(T*, const T*, const T*, Index, Index, cudaStream_t); \
  template void gelu_input_gradient(T*, const T*, const T*, const T*, Index, Index, cudaStream_t);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
