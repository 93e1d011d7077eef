// Sums down the columns of (N, C), in two stages without atomics: equal inputs give equal bits. Private to
// kernels/cuda.
//
//   stage 1: a block sums a chunk of rows of a strip of columns  -> partials (chunks, outputs, C)
//   stage 2: a block sums the partials of 32 columns             -> result (C), each output
#pragma once

#include "kernels/cuda/error.hpp"
#include "kernels/cuda/vector.cuh"

namespace stagecraft::kernels::cuda {

constexpr int column_block_warps = 8;

// Enough chunks to fill the device, few enough for the partials not to count.
constexpr Index column_chunk_rows(Index rows) { return rows <= 64 * 64 ? 64 : (rows + 63) / 64; }
constexpr Index column_chunks(Index rows) { return (rows + column_chunk_rows(rows) - 1) / column_chunk_rows(rows); }

// Floats of workspace for `outputs` sums of each column.
constexpr Index column_sums_floats(Index rows, Index channels, int outputs) {
  return column_chunks(rows) * outputs * channels;
}

// terms(row, column, sums) adds what row `row` contributes to columns [column, column + width).
template <int width, int outputs, class Terms>
__global__ void __launch_bounds__(column_block_warps* warp_size)
    column_partials_kernel(float* partials, Index rows, Index chunk_rows, Index channels, Terms terms) {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  __shared__ float shared[column_block_warps][outputs][width][warp_size];
  const int lane = threadIdx.x % warp_size;
  const int warp = threadIdx.x / warp_size;
  const Index column = (static_cast<Index>(blockIdx.y) * warp_size + lane) * width;
  const Index first = static_cast<Index>(blockIdx.x) * chunk_rows;
  const Index last = min(first + chunk_rows, rows);
  float sums[outputs][width] = {};
  if (column < channels) {
#pragma unroll 4
    for (Index row = first + warp; row < last; row += column_block_warps) terms(row, column, sums);
  }
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
#pragma unroll
    for (int i = 0; i < width; ++i) shared[warp][o][i][lane] = sums[o][i];
  }
  __syncthreads();
  // Consecutive threads finish consecutive columns, so that their stores are coalesced.
  for (int at = static_cast<int>(threadIdx.x); at < outputs * width * warp_size; at += column_block_warps * warp_size) {
    const int o = at / (width * warp_size);
    const int offset = at % (width * warp_size);
    const Index c = static_cast<Index>(blockIdx.y) * warp_size * width + offset;
    if (c >= channels) continue;
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < column_block_warps; ++w) sum += shared[w][o][offset % width][offset / width];
    partials[(static_cast<Index>(blockIdx.x) * outputs + o) * channels + c] = sum;
  }
}

template <int outputs>
struct ColumnResults {
  float* values[outputs];
};

template <int outputs>
__global__ void __launch_bounds__(column_block_warps* warp_size)
    column_finish_kernel(ColumnResults<outputs> results, const float* partials, Index chunks, Index channels,
                         bool accumulate) {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
  __shared__ float shared[column_block_warps][warp_size];
  const int lane = threadIdx.x % warp_size;
  const int warp = threadIdx.x / warp_size;
  const int output = blockIdx.y;
  const Index column = static_cast<Index>(blockIdx.x) * warp_size + lane;
  float sum = 0.0F;
  if (column < channels) {
#pragma unroll 8
    for (Index chunk = warp; chunk < chunks; chunk += column_block_warps) {
      sum += partials[(chunk * outputs + output) * channels + column];
    }
  }
  shared[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= channels) return;
#pragma unroll
  for (int w = 1; w < column_block_warps; ++w) sum += shared[w][lane];
  float* result = results.values[0];
  if constexpr (outputs == 2) {
    if (output == 1) result = results.values[1];
  }
  result[column] = accumulate ? result[column] + sum : sum;
}

// Launches a kernel that waits by itself (cudaGridDependencySynchronize) for the kernel before it in the stream.
// Devices that can, from compute capability 9.0 on, then start it while that one still runs.
template <class... Parameters, class... Arguments>
void launch_waiting(void (*kernel)(Parameters...), dim3 grid, int threads, cudaStream_t stream,
                    const Arguments&... arguments) {
  // What runs may have been compiled for less than the device can, and would not wait.
  cudaFuncAttributes code{};
  STAGECRAFT_CUDA_CHECK(cudaFuncGetAttributes(&code, kernel));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = code.ptxVersion >= 90 ? 1 : 0;
  STAGECRAFT_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
}

template <int width, int outputs, class Terms>
void column_sums(const ColumnResults<outputs>& results, float* workspace, Index rows, Index channels, Terms terms,
                 Accumulate accumulate, cudaStream_t stream, const char* name) {
  static_assert(outputs == 1 || outputs == 2);
  constexpr int threads = column_block_warps * warp_size;
  const Index chunks = column_chunks(rows);
  const dim3 strips(static_cast<unsigned>(chunks), blocks_for(channels, warp_size * width));
  column_partials_kernel<width, outputs>
      <<<strips, threads, 0, stream>>>(workspace, rows, column_chunk_rows(rows), channels, terms);
  check_launch(name);
  const dim3 columns(blocks_for(channels, warp_size), outputs);
  launch_waiting(column_finish_kernel<outputs>, columns, threads, stream, results, static_cast<const float*>(workspace),
                 chunks, channels, accumulate == Accumulate::yes);
  check_launch(name);
}

}  // namespace stagecraft::kernels::cuda
