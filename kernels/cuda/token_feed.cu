#include "kernels/cuda/error.hpp"
#include "kernels/cuda/token_feed.hpp"

namespace stagecraft::kernels::cuda {
namespace {

constexpr int threads = 1024;
constexpr int loads = 8;  // in flight, of each thread: host memory is a microsecond away

__global__ void __launch_bounds__(threads)
    take_next_kernel(std::int32_t* to, const std::int32_t* values, std::int64_t count, std::int32_t* position) {
  values += *position * count;
  for (std::int64_t first = threadIdx.x; first < count; first += threads * loads) {
    std::int32_t taken[loads];
#pragma unroll
    for (int k = 0; k < loads; ++k) {
      const std::int64_t i = first + k * threads;
      if (i < count) taken[k] = values[i];
    }
#pragma unroll
    for (int k = 0; k < loads; ++k) {
      const std::int64_t i = first + k * threads;
      if (i < count) to[i] = taken[k];
    }
  }
  __syncthreads();  // all have read the position
  if (threadIdx.x == 0) ++*position;
}

}  // namespace

void take_next(std::int32_t* to, const std::int32_t* values, std::int64_t count, std::int32_t* position,
               cudaStream_t stream) {
  take_next_kernel<<<1, threads, 0, stream>>>(to, values, count, position);
  check_launch("take_next");
}

}  // namespace stagecraft::kernels::cuda
