// A pass over spans that treats every element alike. Private to kernels/cuda.
#pragma once

#include "kernels/cuda/error.hpp"
#include "kernels/cuda/vector.cuh"

namespace stagecraft::kernels::cuda {

// Calls body(i, Constant<n>) for elements [i, i + n): n is `width` for whole vectors, 1 for what is left at the end.
template <int width, class Body>
__global__ void __launch_bounds__(256) for_each_kernel(Index count, Body body) {
  const Index first = (static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  if (first + width <= count) {
    body(first, Constant<width>{});
  } else {
    for (Index i = first; i < count; ++i) body(i, Constant<1>{});
  }
}

template <int width, class Body>
void for_each(Index count, const Body& body, cudaStream_t stream, const char* name) {
  constexpr int threads = 256;
  if (count == 0) return;
  for_each_kernel<width><<<blocks_for(count, threads * width), threads, 0, stream>>>(count, body);
  check_launch(name);
}

}  // namespace stagecraft::kernels::cuda
