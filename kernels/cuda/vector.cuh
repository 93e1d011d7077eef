// Loads and stores of 16 bytes, conversion to float, sums over a warp. Private to kernels/cuda.
#pragma once

#include <type_traits>

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

using Index = std::int64_t;

constexpr int warp_size = 32;

template <class T>
inline constexpr int vector_width = 16 / static_cast<int>(sizeof(T));

// n neighbouring elements, as they lie in memory.
template <class T, int n>
struct alignas(sizeof(T) * n < 16 ? sizeof(T) * n : 16) Pack {
  T values[n];
};

template <int n, class T>
__device__ inline Pack<T, n> load(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(Bf16 x) { return __bfloat162float(x); }

template <class T, int n>
__device__ inline void widen(float (&to)[n], const Pack<T, n>& from) {
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = widen(from.values[i]);
}

template <class T, int n>
__device__ inline void load(float (&to)[n], const T* from) {
  widen(to, load<n>(from));
}

template <class T>
__device__ inline T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}

template <class T, int n>
__device__ inline Pack<T, n> narrow(const float (&from)[n]) {
  Pack<T, n> to;
  if constexpr (std::is_same_v<T, Bf16> && n % 2 == 0) {
#pragma unroll
    for (int i = 0; i < n; i += 2) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(from[i], from[i + 1]);
      to.values[i] = pair.x;
      to.values[i + 1] = pair.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < n; ++i) to.values[i] = narrow<T>(from[i]);
  }
  return to;
}

template <int n, class T>
__device__ inline void store(T* to, const Pack<T, n>& from) {
  *reinterpret_cast<Pack<T, n>*>(to) = from;
}

template <class T, int n>
__device__ inline void store(T* to, const float (&from)[n]) {
  store<n>(to, narrow<T, n>(from));
}

// Hides where a pack comes from. Without it the compiler keeps the floats that it once widened a pack to until their
// last use, and Bf16 takes twice the registers.
template <class T, int n>
__device__ inline void keep_narrow(Pack<T, n>& pack) {
  if constexpr (std::is_same_v<T, Bf16> && n == 8) {
    uint4& words = reinterpret_cast<uint4&>(pack);
    asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
  }
}

// Every lane gets the sum, added in an order that depends on nothing.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}

// Sums over a block of `warps` warps; every thread gets them. All threads must call; `scratch` must not be in use.
template <int warps, int n>
__device__ inline void block_sum(float (&x)[n], float (&scratch)[warps][n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] = warp_sum(x[i]);
  if constexpr (warps > 1) {
    if (threadIdx.x % warp_size == 0) {
#pragma unroll
      for (int i = 0; i < n; ++i) scratch[threadIdx.x / warp_size][i] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < n; ++i) {
      x[i] = 0.0F;
#pragma unroll
      for (int w = 0; w < warps; ++w) x[i] += scratch[w][i];
    }
  }
}

template <int n>
using Constant = std::integral_constant<int, n>;

constexpr unsigned blocks_for(Index count, Index per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

}  // namespace stagecraft::kernels::cuda
