// Plain passes over spans. Buffers of one call may be the same buffer, but must not overlap otherwise.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// y = x in another type; to Bf16 it rounds to nearest even.
void cast(Bf16* y, const float* x, std::int64_t count, cudaStream_t stream);
void cast(float* y, const Bf16* x, std::int64_t count, cudaStream_t stream);

template <class T>
void copy(T* y, const T* x, std::int64_t count, cudaStream_t stream);

template <class T>
void add(T* y, const T* a, const T* b, std::int64_t count, cudaStream_t stream);  // y = a + b

void accumulate(float* y, const float* x, std::int64_t count, cudaStream_t stream);  // y += x
void accumulate(float* y, const Bf16* x, std::int64_t count, cudaStream_t stream);
void scale(float* y, float factor, std::int64_t count, cudaStream_t stream);  // y *= factor

}  // namespace stagecraft::kernels::cuda
