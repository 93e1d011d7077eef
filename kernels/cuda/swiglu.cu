#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/swiglu.hpp"

namespace stagecraft::kernels::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0F / (1.0F + __expf(-x)); }

// Element i of (N, F) sits at this place of (N, 2F), its partner F further on.
__device__ Index gate_at(Index i, Index features) { return i + i / features * features; }

template <class T>
struct Forward {
  T* y;
  const T* gate_up;
  Index features;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    const T* const at = gate_up + gate_at(i, features);
    float gate[n];
    float up[n];
    load(gate, at);
    load(up, at + features);
#pragma unroll
    for (int k = 0; k < n; ++k) up[k] *= gate[k] * sigmoid(gate[k]);
    store(y + i, up);
  }
};

template <class T>
struct InputGradient {
  T* d_gate_up;
  const T* dy;
  const T* gate_up;
  Index features;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    const Index at = gate_at(i, features);
    float gate[n];
    float up[n];
    float gradient[n];
    load(gate, gate_up + at);
    load(up, gate_up + at + features);
    load(gradient, dy + i);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const float s = sigmoid(gate[k]);
      const float silu = gate[k] * s;
      gate[k] = gradient[k] * up[k] * (s + silu * (1.0F - s));
      up[k] = gradient[k] * silu;
    }
    store(d_gate_up + at, gate);
    store(d_gate_up + at + features, up);
  }
};

// A vector must not reach over the end of a row.
template <class T, class Body>
void for_each_feature(Index rows, Index features, const Body& body, cudaStream_t stream, const char* name) {
  if (features % vector_width<T> == 0) {
    for_each<vector_width<T>>(rows * features, body, stream, name);
  } else {
    for_each<1>(rows * features, body, stream, name);
  }
}

}  // namespace

template <class T>
void swiglu_forward(T* y, const T* gate_up, Index rows, Index features, cudaStream_t stream) {
  for_each_feature<T>(rows, features, Forward<T>{y, gate_up, features}, stream, "swiglu_forward");
}

template <class T>
void swiglu_input_gradient(T* d_gate_up, const T* dy, const T* gate_up, Index rows, Index features,
                           cudaStream_t stream) {
  for_each_feature<T>(rows, features, InputGradient<T>{d_gate_up, dy, gate_up, features}, stream,
                      "swiglu_input_gradient");
}

template void swiglu_forward(float*, const float*, Index, Index, cudaStream_t);
template void swiglu_forward(Bf16*, const Bf16*, Index, Index, cudaStream_t);
template void swiglu_input_gradient(float*, const float*, const float*, Index, Index, cudaStream_t);
template void swiglu_input_gradient(Bf16*, const Bf16*, const Bf16*, Index, Index, cudaStream_t);

}  // namespace stagecraft::kernels::cuda
