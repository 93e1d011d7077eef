#include "kernels/cuda/embedding.hpp"
#include "kernels/cuda/for_each.cuh"

namespace stagecraft::kernels::cuda {
namespace {

// The token's row of a table that begins at held.first; held.count for all that are not in it.
__device__ inline std::int32_t row_of(std::int32_t token, TokenRange held) {
  const Index row = token - held.first;
  return static_cast<std::int32_t>(row >= 0 && row < held.count ? row : held.count);
}

template <class T>
struct Forward {
  T* y;
  const std::int32_t* tokens;
  const T* token_table;
  const T* position_table;
  Index time, channels;
  TokenRange held;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    const Index row = i / channels;
    const Index column = i % channels;
    float values[n] = {};
    const Index token = row_of(tokens[row], held);
    if (token < held.count) load(values, token_table + token * channels + column);
    if (position_table != nullptr) {
      float positions[n];
      load(positions, position_table + row % time * channels + column);
#pragma unroll
      for (int k = 0; k < n; ++k) values[k] += positions[k];
    }
    store(y + i, values);
  }
};

// Element i of (T, C) collects the rows of its position.
template <class T>
struct PositionGradient {
  float* d_table;
  const T* dy;
  Index batch, time, channels;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    float sum[n];
    load(sum, d_table + i);
#pragma unroll 4
    for (Index b = 0; b < batch; ++b) {
      float values[n];
      load(values, dy + b * time * channels + i);
#pragma unroll
      for (int k = 0; k < n; ++k) sum[k] += values[k];
    }
    store(d_table + i, sum);
  }
};

// The rows sorted by their token's row in the table, those of equal tokens in their own order; tokens that are not held
// come last.
struct Sorted {
  std::int32_t* rows;    // (N)
  std::int32_t* tokens;  // (N)
};

constexpr int sort_threads = 256;
constexpr int rows_per_warp = 4;
constexpr int sort_tile = 4096;
constexpr int sort_rows = sort_threads / warp_size * rows_per_warp;

// Sorts by counting, for each row, the rows before it in the order: N^2 comparisons, which for the 10^4 tokens of a
// micro-batch take less time than the passes of a radix sort.
__global__ void __launch_bounds__(sort_threads)
    sort_kernel(Sorted sorted, const std::int32_t* tokens, int count, TokenRange held) {
  __shared__ std::int32_t tile[sort_tile];
  const int lane = threadIdx.x % warp_size;
  const int first = (blockIdx.x * (sort_threads / warp_size) + threadIdx.x / warp_size) * rows_per_warp;
  std::int32_t token[rows_per_warp];
  int rank[rows_per_warp] = {};
#pragma unroll
  for (int i = 0; i < rows_per_warp; ++i) token[i] = first + i < count ? row_of(tokens[first + i], held) : 0;
  for (int start = 0; start < count; start += sort_tile) {
    const int size = min(sort_tile, count - start);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < sort_tile / sort_threads; ++i) {
      const int at = i * sort_threads + static_cast<int>(threadIdx.x);
      if (at < size) tile[at] = row_of(tokens[start + at], held);
    }
    __syncthreads();
#pragma unroll 4
    for (int at = lane; at < size; at += warp_size) {
      const std::int32_t other = tile[at];
      const int row = start + at;
#pragma unroll
      for (int i = 0; i < rows_per_warp; ++i) {
        rank[i] += other < token[i] || (other == token[i] && row < first + i) ? 1 : 0;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < rows_per_warp; ++i) {
    for (int offset = warp_size / 2; offset > 0; offset /= 2) rank[i] += __shfl_xor_sync(0xffffffffU, rank[i], offset);
    if (lane == 0 && first + i < count) {
      sorted.rows[rank[i]] = first + i;
      sorted.tokens[rank[i]] = token[i];
    }
  }
}

// A run of equal tokens may be long (the token of "the") and would keep one block busy for as long. So the sorted rows
// are cut into chunks: a chunk adds the runs that start in it to the table; what it holds of a run that started earlier
// goes to its line of `partials`, and the second kernel adds those.
constexpr int chunk_rows = 8;
constexpr int token_threads = 128;

template <class T, int width>
__global__ void __launch_bounds__(token_threads)
    chunk_kernel(float* d_table, float* partials, Sorted sorted, const T* dy, Index count, Index channels,
                 std::int32_t held) {
  const Index column = (static_cast<Index>(blockIdx.y) * token_threads + threadIdx.x) * width;
  const Index first = static_cast<Index>(blockIdx.x) * chunk_rows;
  if (column >= channels || sorted.tokens[first] == held) return;
  const int rows = static_cast<int>(min(Index{chunk_rows}, count - first));
  const std::int32_t earlier = first > 0 ? sorted.tokens[first - 1] : -1;
  float sum[width] = {};
  constexpr int batch = 4;  // rows whose loads are in flight together
  for (int start = 0; start < rows; start += batch) {
    Pack<T, width> gradients[batch];
    float* to[batch];  // where the run that ends with this row goes; null inside a run
    float values[batch][width];
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      to[k] = nullptr;
      const int i = start + k;
      if (i >= rows) continue;
      gradients[k] = load<width>(dy + sorted.rows[first + i] * channels + column);
      const std::int32_t token = sorted.tokens[first + i];
      if (token == held) continue;  // the last run, which nothing follows
      if (i + 1 < rows && sorted.tokens[first + i + 1] == token) continue;
      // No other run has this line of the table, or of the partials.
      to[k] = token == earlier ? partials + blockIdx.x * channels + column : d_table + token * channels + column;
      if (token != earlier) load(values[k], to[k]);
    }
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      if (start + k >= rows) continue;
      float gradient[width];
      widen(gradient, gradients[k]);
      const bool ends = to[k] != nullptr;
      const bool adds = ends && sorted.tokens[first + start + k] != earlier;
#pragma unroll
      for (int c = 0; c < width; ++c) {
        sum[c] += gradient[c];
        if (adds) values[k][c] += sum[c];
      }
      if (!ends) continue;
      if (adds) {
        store(to[k], values[k]);
      } else {
        store(to[k], sum);
      }
#pragma unroll
      for (int c = 0; c < width; ++c) sum[c] = 0.0F;
    }
  }
}

// The first chunk that continues a run adds the partials of all that do.
template <int width>
__global__ void __launch_bounds__(token_threads)
    partials_kernel(float* d_table, const float* partials, const std::int32_t* tokens, Index count, Index channels,
                    std::int32_t held) {
  const Index column = (static_cast<Index>(blockIdx.y) * token_threads + threadIdx.x) * width;
  const Index first = (static_cast<Index>(blockIdx.x) + 1) * chunk_rows;
  if (column >= channels) return;
  const std::int32_t token = tokens[first];
  const auto continues_at = [&](Index row) { return row < count && tokens[row] == token && tokens[row - 1] == token; };
  if (token == held || !continues_at(first)) return;
  if (first > chunk_rows && continues_at(first - chunk_rows)) return;
  float* const to = d_table + token * channels + column;
  float sum[width];
  load(sum, to);
  for (Index row = first; continues_at(row); row += chunk_rows) {
    float values[width];
    load(values, partials + row / chunk_rows * channels + column);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] += values[k];
  }
  store(to, sum);
}

constexpr Index aligned(Index bytes) { return (bytes + 15) / 16 * 16; }

template <class T, int width>
void weight_gradient(float* d_token_table, float* d_position_table, const Sorted& sorted, float* partials, const T* dy,
                     Index batch, Index time, Index channels, TokenRange held, cudaStream_t stream) {
  const Index count = batch * time;
  const auto not_held = static_cast<std::int32_t>(held.count);
  const unsigned strips = blocks_for(channels, token_threads * width);
  const unsigned chunks = blocks_for(count, chunk_rows);
  chunk_kernel<T, width><<<dim3(chunks, strips), token_threads, 0, stream>>>(d_token_table, partials, sorted, dy, count,
                                                                             channels, not_held);
  check_launch("embedding_weight_gradient");
  if (chunks > 1) {
    partials_kernel<width><<<dim3(chunks - 1, strips), token_threads, 0, stream>>>(
        d_token_table, partials, sorted.tokens, count, channels, not_held);
    check_launch("embedding_weight_gradient");
  }
  if (d_position_table != nullptr) {
    for_each<width>(time * channels, PositionGradient<T>{d_position_table, dy, batch, time, channels}, stream,
                    "embedding_weight_gradient");
  }
}

}  // namespace

template <class T>
void embedding_forward(T* y, const std::int32_t* tokens, const T* token_table, const T* position_table, Index batch,
                       Index time, Index channels, cudaStream_t stream, TokenRange held) {
  const Forward<T> body{y, tokens, token_table, position_table, time, channels, held};
  if (channels % vector_width<T> == 0) {
    for_each<vector_width<T>>(batch * time * channels, body, stream, "embedding_forward");
  } else {
    for_each<1>(batch * time * channels, body, stream, "embedding_forward");
  }
}

std::size_t embedding_weight_gradient_workspace_bytes(Index batch, Index time, Index channels) {
  const Index count = batch * time;
  return static_cast<std::size_t>(2 * aligned(count * 4) + blocks_for(count, chunk_rows) * channels * 4);
}

template <class T>
void embedding_weight_gradient(float* d_token_table, float* d_position_table, const std::int32_t* tokens, const T* dy,
                               Index batch, Index time, Index channels, void* workspace, cudaStream_t stream,
                               TokenRange held) {
  const Index count = batch * time;
  auto* const bytes = static_cast<std::byte*>(workspace);
  const Sorted sorted{reinterpret_cast<std::int32_t*>(bytes),
                      reinterpret_cast<std::int32_t*>(bytes + aligned(count * 4))};
  auto* const partials = reinterpret_cast<float*>(bytes + 2 * aligned(count * 4));
  sort_kernel<<<blocks_for(count, sort_rows), sort_threads, 0, stream>>>(sorted, tokens, static_cast<int>(count), held);
  check_launch("embedding_weight_gradient");
  // Four floats of a table make 16 bytes, whatever dy is stored as.
  if (channels % 4 == 0) {
    weight_gradient<T, 4>(d_token_table, d_position_table, sorted, partials, dy, batch, time, channels, held, stream);
  } else {
    weight_gradient<T, 1>(d_token_table, d_position_table, sorted, partials, dy, batch, time, channels, held, stream);
  }
}

#define STAGECRAFT_INSTANTIATE(T)                                                                                    \
  template void embedding_forward(T*, const std::int32_t*, const T*, const T*, Index, Index, Index, cudaStream_t,    \
                                  TokenRange);                                                                       \
  template void embedding_weight_gradient(float*, float*, const std::int32_t*, const T*, Index, Index, Index, void*, \
                                          cudaStream_t, TokenRange);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
