#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/noise.hpp"

namespace stagecraft::kernels::cuda {
namespace {

template <class T>
struct Noise {
  T* x;
  float low, range;
  std::uint64_t seed;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float values[n];
#pragma unroll
    for (int k = 0; k < n; ++k) {
      // splitmix64 (Steele et al. 2014) as a hash.
      std::uint64_t z = (static_cast<std::uint64_t>(i + k) + (seed << 40) + 1) * 0x9e3779b97f4a7c15ULL;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      values[k] = static_cast<float>(static_cast<std::uint32_t>(z >> 40)) * 0x1p-24F * range + low;
    }
    store(x + i, values);
  }
};

}  // namespace

void fill_noise(float* x, Index count, float low, float high, std::uint64_t seed, cudaStream_t stream) {
  for_each<4>(count, Noise<float>{x, low, high - low, seed}, stream, "fill_noise");
}

void fill_noise(Bf16* x, Index count, float low, float high, std::uint64_t seed, cudaStream_t stream) {
  for_each<8>(count, Noise<Bf16>{x, low, high - low, seed}, stream, "fill_noise");
}

}  // namespace stagecraft::kernels::cuda
