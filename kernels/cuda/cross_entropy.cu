#include <cfloat>

#include "kernels/cuda/cross_entropy.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/vector.cuh"

namespace stagecraft::kernels::cuda {
namespace {

constexpr int threads = 1024;
constexpr int warps = threads / warp_size;
static_assert(warps == warp_size, "one warp merges what the warps found");

// sum of exp(x - maximum) over some x, and their maximum.
struct Exponentials {
  float maximum = -FLT_MAX;
  float sum = 0.0F;
};

__device__ Exponentials merged(Exponentials a, Exponentials b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  return {maximum, a.sum * __expf(a.maximum - maximum) + b.sum * __expf(b.maximum - maximum)};
}

__device__ Exponentials warp_merged(Exponentials e) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    e = merged(e, {__shfl_xor_sync(0xffffffffU, e.maximum, offset), __shfl_xor_sync(0xffffffffU, e.sum, offset)});
  }
  return e;
}

__device__ Exponentials block_merged(Exponentials e) {
  __shared__ Exponentials shared[warps];
  const int lane = threadIdx.x % warp_size;
  e = warp_merged(e);
  if (lane == 0) shared[threadIdx.x / warp_size] = e;
  __syncthreads();
  return warp_merged(shared[lane]);
}

// Leaves room for a second block on a multiprocessor with 228 KB (compute capability 9.0 and later).
constexpr std::size_t most_shared_bytes = std::size_t{112} << 10;

// Of what the thread sees of a row; with `shared` it also leaves that in `kept`.
template <bool shared, int width, class T>
__device__ inline Exponentials exponentials_of(const T* x, T* kept, int vocabulary) {
  Exponentials e;
#pragma unroll 2
  for (int c = static_cast<int>(threadIdx.x) * width; c < vocabulary; c += threads * width) {
    const Pack<T, width> pack = load<width>(x + c);
    if constexpr (shared) store<width>(kept + c, pack);
    float values[width];
    widen(values, pack);
    float maximum = e.maximum;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      if (c + i >= vocabulary) values[i] = -FLT_MAX;
      maximum = fmaxf(maximum, values[i]);
    }
    e.sum *= __expf(e.maximum - maximum);
    e.maximum = maximum;
#pragma unroll
    for (int i = 0; i < width; ++i) e.sum += __expf(values[i] - maximum);
  }
  return e;
}

// A block takes a row. With `shared` the first pass leaves it in shared memory for the second; rows too long for that
// are read again, from the L2 cache, since 2048 threads a multiprocessor keep few rows in flight.
template <bool gradient, bool shared, int width, class T>
__global__ void __launch_bounds__(threads, 2)
    cross_entropy_kernel(float* losses, T* logits, const std::int32_t* targets, int vocabulary, Index row_stride,
                         float scale) {
  extern __shared__ uint4 shared_row[];
  T* const kept = reinterpret_cast<T*>(shared_row);
  const Index row = blockIdx.x;
  T* const x = logits + row * row_stride;
  const int target = targets[row];
  const float at_target = widen(x[target]);

  const Exponentials e = block_merged(exponentials_of<shared, width>(x, kept, vocabulary));
  if (threadIdx.x == 0) losses[row] = logf(e.sum) - (at_target - e.maximum);
  if constexpr (!gradient) return;

  const float factor = scale / e.sum;
#pragma unroll 2
  for (int c = static_cast<int>(threadIdx.x) * width; c < row_stride; c += threads * width) {
    float values[width];
    load(values, (shared ? kept : x) + c);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      values[i] = c + i < vocabulary ? factor * __expf(values[i] - e.maximum) : 0.0F;
      if (c + i == target) values[i] -= scale;
    }
    store(x + c, values);
  }
}

template <bool gradient, class T>
void launch(float* losses, T* logits, const std::int32_t* targets, Index rows, Index vocabulary, Index row_stride,
            float scale, cudaStream_t stream, const char* name) {
  const auto run = [&](auto* kernel, std::size_t shared_bytes) {
    if (shared_bytes > 0) {
      STAGECRAFT_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(most_shared_bytes)));
    }
    kernel<<<static_cast<unsigned>(rows), threads, shared_bytes, stream>>>(
        losses, logits, targets, static_cast<int>(vocabulary), row_stride, scale);
    check_launch(name);
  };
  constexpr int width = vector_width<T>;
  const std::size_t row_bytes = static_cast<std::size_t>(row_stride) * sizeof(T);
  if (row_stride % width != 0) {
    run(cross_entropy_kernel<gradient, false, 1, T>, 0);
  } else if (gradient && row_bytes <= most_shared_bytes) {
    run(cross_entropy_kernel<gradient, gradient, width, T>, row_bytes);
  } else {
    run(cross_entropy_kernel<gradient, false, width, T>, 0);
  }
}

// A block takes a row of this shard.
template <int width, class T>
__global__ void __launch_bounds__(threads, 2)
    shard_statistics_kernel(float* statistics, const T* logits, const std::int32_t* targets, int vocabulary,
                            Index row_stride, Index first) {
  const Index row = blockIdx.x, rows = gridDim.x;
  const T* const x = logits + row * row_stride;
  const Exponentials e = block_merged(exponentials_of<false, width, T>(x, nullptr, vocabulary));
  if (threadIdx.x != 0) return;
  const Index target = targets[row] - first;
  statistics[row] = e.maximum;
  statistics[rows + row] = e.sum;
  statistics[2 * rows + row] = target >= 0 && target < vocabulary ? widen(x[target]) : 0.0F;
}

template <int width, class T>
__global__ void __launch_bounds__(threads, 2)
    shard_gradient_kernel(float* losses, T* logits, const float* statistics, const std::int32_t* targets, int shards,
                          int vocabulary, Index row_stride, Index first, float scale) {
  const Index row = blockIdx.x, rows = gridDim.x;
  T* const x = logits + row * row_stride;
  const Index target = targets[row] - first;
  Exponentials e;
  float at_target = 0.0F;
  for (int s = 0; s < shards; ++s) {
    const float* const of = statistics + s * cross_entropy_statistics * rows + row;
    e = merged(e, {of[0], of[rows]});
    at_target += of[2 * rows];
  }
  if (threadIdx.x == 0) losses[row] = logf(e.sum) - (at_target - e.maximum);
  const float factor = scale / e.sum;
#pragma unroll 2
  for (int c = static_cast<int>(threadIdx.x) * width; c < row_stride; c += threads * width) {
    float values[width];
    load(values, x + c);
#pragma unroll
    for (int i = 0; i < width; ++i) {
      values[i] = c + i < vocabulary ? factor * __expf(values[i] - e.maximum) : 0.0F;
      if (c + i == target) values[i] -= scale;
    }
    store(x + c, values);
  }
}

__global__ void __launch_bounds__(threads) add_mean_kernel(double* sum_of_means, const float* losses, Index rows) {
  __shared__ double shared[threads];
  double sum = 0.0;
  for (Index row = threadIdx.x; row < rows; row += threads) sum += static_cast<double>(losses[row]);
  shared[threadIdx.x] = sum;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) *sum_of_means += shared[0] / static_cast<double>(rows);
}

}  // namespace

template <class T>
void cross_entropy_loss(float* losses, const T* logits, const std::int32_t* targets, Index rows, Index vocabulary,
                        Index row_stride, cudaStream_t stream) {
  // Without `gradient` the kernel only reads them.
  launch<false>(losses, const_cast<T*>(logits), targets, rows, vocabulary, row_stride, 0.0F, stream,
                "cross_entropy_loss");
}

template <class T>
void cross_entropy_loss_and_gradient(float* losses, T* logits, const std::int32_t* targets, Index rows,
                                     Index vocabulary, Index row_stride, float gradient_scale, cudaStream_t stream) {
  launch<true>(losses, logits, targets, rows, vocabulary, row_stride, gradient_scale, stream,
               "cross_entropy_loss_and_gradient");
}

template <class T>
void cross_entropy_shard_statistics(float* statistics, const T* logits, const std::int32_t* targets, Index rows,
                                    Index vocabulary, Index row_stride, Index first, cudaStream_t stream) {
  const auto run = [&](auto* kernel) {
    kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(statistics, logits, targets,
                                                                static_cast<int>(vocabulary), row_stride, first);
    check_launch("cross_entropy_shard_statistics");
  };
  run(row_stride % vector_width<T> == 0 ? shard_statistics_kernel<vector_width<T>, T> : shard_statistics_kernel<1, T>);
}

template <class T>
void cross_entropy_shard_loss_and_gradient(float* losses, T* logits, const float* statistics,
                                           const std::int32_t* targets, Index shards, Index rows, Index vocabulary,
                                           Index row_stride, Index first, float gradient_scale, cudaStream_t stream) {
  const auto run = [&](auto* kernel) {
    kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(losses, logits, statistics, targets,
                                                                static_cast<int>(shards), static_cast<int>(vocabulary),
                                                                row_stride, first, gradient_scale);
    check_launch("cross_entropy_shard_loss_and_gradient");
  };
  run(row_stride % vector_width<T> == 0 ? shard_gradient_kernel<vector_width<T>, T> : shard_gradient_kernel<1, T>);
}

void add_mean_loss(double* sum_of_means, const float* losses, Index rows, cudaStream_t stream) {
  add_mean_kernel<<<1, threads, 0, stream>>>(sum_of_means, losses, rows);
  check_launch("add_mean_loss");
}

#define STAGECRAFT_INSTANTIATE(T)                                                                                  \
  template void cross_entropy_loss(float*, const T*, const std::int32_t*, Index, Index, Index, cudaStream_t);      \
  template void cross_entropy_loss_and_gradient(float*, T*, const std::int32_t*, Index, Index, Index, float,       \
                                                cudaStream_t);                                                     \
  template void cross_entropy_shard_statistics(float*, const T*, const std::int32_t*, Index, Index, Index, Index,  \
                                               cudaStream_t);                                                      \
  template void cross_entropy_shard_loss_and_gradient(float*, T*, const float*, const std::int32_t*, Index, Index, \
                                                      Index, Index, Index, float, cudaStream_t);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
