// Random numbers for timing: what a kernel takes depends on its data through the power it draws, and zeros flatter it.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// Uniform in [low, high]; element i depends on (seed, i) alone.
void fill_noise(float* x, std::int64_t count, float low, float high, std::uint64_t seed, cudaStream_t stream);
void fill_noise(Bf16* x, std::int64_t count, float low, float high, std::uint64_t seed, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
