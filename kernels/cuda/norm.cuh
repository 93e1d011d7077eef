// LayerNorm and RMSNorm share everything but the mean. Private to kernels/cuda.
//
// A row lives in the registers of one warp, or of several where it is long: it is read once, and the two passes over it
// (statistics, then result) cost no memory traffic.
#pragma once

#include <string>

#include "kernels/cuda/column_sums.cuh"

namespace stagecraft::kernels::cuda {

template <class T>
struct NormForward {
  T* y;
  T* sum;       // x + addend is stored here, unless addend is null
  float* mean;  // null for RMSNorm
  float* rstd;
  const T* x;
  const T* addend;  // null: normalise x itself
  const T* gamma;
  const T* beta;  // null for RMSNorm
  Index rows, channels;
  float epsilon;
};

template <class T>
struct NormInputGradient {
  T* dx;
  const T* residual;  // added; null for nothing
  const T* dy;
  const T* x;
  const T* gamma;
  const float* mean;  // null for RMSNorm
  const float* rstd;
  Index rows, channels;
};

// Warps of a row and vectors of a lane: which part of a row this thread holds.
template <int width_, int warps_, int packs_>
struct RowShape {
  static constexpr int width = width_;
  static constexpr int warps = warps_;
  static constexpr int packs = packs_;
  static constexpr int threads = warps == 1 ? 4 * warp_size : warps * warp_size;
  static constexpr int rows_per_block = threads / (warps * warp_size);
  // Asks for registers so few that `resident` threads fit on a multiprocessor: the backward needs many rows in flight
  // to hide its loads more than it needs registers.
  static constexpr int blocks_for_resident(int resident) { return threads < resident ? resident / threads : 1; }
  static constexpr Index capacity = Index{width} * warps * warp_size * packs;

  __device__ static Index row() {
    return static_cast<Index>(blockIdx.x) * rows_per_block + threadIdx.x / (warps * warp_size);
  }
  // Column of this thread's vector `pack`.
  __device__ static int column(int pack) {
    return (pack * warps * warp_size + static_cast<int>(threadIdx.x) % (warps * warp_size)) * width;
  }
};

template <class T, class Shape, bool centred>
__global__ void __launch_bounds__(Shape::threads) norm_forward_kernel(NormForward<T> a) {
  constexpr int width = Shape::width;
  constexpr int packs = Shape::packs;
  __shared__ float scratch[2][Shape::warps][1];
  const Index row = Shape::row();
  if (row >= a.rows) return;  // whole warps, and with several warps a row whole blocks
  const Index at = row * a.channels;

  Pack<T, width> x[packs];
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int c = Shape::column(p);
    if (c < a.channels) x[p] = load<width>(a.x + at + c);
  }
  if (a.addend != nullptr) {
    Pack<T, width> addend[packs];
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int c = Shape::column(p);
      if (c < a.channels) addend[p] = load<width>(a.addend + at + c);
    }
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int c = Shape::column(p);
      if (c >= a.channels) continue;
      float left[width];
      float right[width];
      widen(left, x[p]);
      widen(right, addend[p]);
#pragma unroll
      for (int i = 0; i < width; ++i) left[i] += right[i];
      // What is normalised is what the backward will read: the rounded sum.
      x[p] = narrow<T, width>(left);
      store<width>(a.sum + at + c, x[p]);
    }
  }

  const float inverse_channels = 1.0F / static_cast<float>(a.channels);
  float mean = 0.0F;
  if constexpr (centred) {
    float sum[1] = {};
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      if (Shape::column(p) >= a.channels) continue;
      float values[width];
      widen(values, x[p]);
#pragma unroll
      for (int i = 0; i < width; ++i) sum[0] += values[i];
    }
    block_sum(sum, scratch[0]);
#pragma unroll
    for (int p = 0; p < packs; ++p) keep_narrow(x[p]);
    mean = sum[0] * inverse_channels;
  }
  float squares[1] = {};
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    if (Shape::column(p) >= a.channels) continue;
    float values[width];
    widen(values, x[p]);
#pragma unroll
    for (int i = 0; i < width; ++i) squares[0] += (values[i] - mean) * (values[i] - mean);
  }
  block_sum(squares, scratch[1]);
#pragma unroll
  for (int p = 0; p < packs; ++p) keep_narrow(x[p]);
  const float rstd = rsqrtf(squares[0] * inverse_channels + a.epsilon);

#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int c = Shape::column(p);
    if (c >= a.channels) continue;
    float values[width];
    float gamma[width];
    widen(values, x[p]);
    load(gamma, a.gamma + c);
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = (values[i] - mean) * rstd * gamma[i];
    if constexpr (centred) {
      float beta[width];
      load(beta, a.beta + c);
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] += beta[i];
    }
    store(a.y + at + c, values);
  }
  if (threadIdx.x % (Shape::warps * warp_size) == 0) {
    if constexpr (centred) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
}

// With xhat = (x - mean) * rstd and g = dy * gamma: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)); RMSNorm has
// neither mean of x nor mean of g.
template <class T, class Shape, bool centred, bool add_residual>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks_for_resident(add_residual ? 1024 : 1280))
    norm_input_gradient_kernel(NormInputGradient<T> a) {
  constexpr int width = Shape::width;
  constexpr int packs = Shape::packs;
  __shared__ float scratch[Shape::warps][2];
  const Index row = Shape::row();
  if (row >= a.rows) return;
  const Index at = row * a.channels;

  // All of the row's loads are in flight before the first is used; gamma comes from the cache.
  Pack<T, width> x[packs];
  Pack<T, width> dy[packs];
  Pack<T, width> residual[packs];
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int c = Shape::column(p);
    if (c >= a.channels) continue;
    x[p] = load<width>(a.x + at + c);
    dy[p] = load<width>(a.dy + at + c);
    if constexpr (add_residual) residual[p] = load<width>(a.residual + at + c);
  }
  const float mean = centred ? a.mean[row] : 0.0F;
  const float rstd = a.rstd[row];
  float sums[2] = {};  // of g and of g * xhat
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    if (Shape::column(p) >= a.channels) continue;
    float values[width];
    float gradients[width];
    float factors[width];
    widen(values, x[p]);
    widen(gradients, dy[p]);
    load(factors, a.gamma + Shape::column(p));
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float g = gradients[i] * factors[i];
      sums[0] += g;
      sums[1] += g * ((values[i] - mean) * rstd);
    }
  }
  block_sum(sums, scratch);
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    keep_narrow(x[p]);
    keep_narrow(dy[p]);
    if constexpr (add_residual) keep_narrow(residual[p]);
  }
  const float inverse_channels = 1.0F / static_cast<float>(a.channels);
  const float g_mean = centred ? sums[0] * inverse_channels : 0.0F;
  const float g_xhat_mean = sums[1] * inverse_channels;

#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int c = Shape::column(p);
    if (c >= a.channels) continue;
    float values[width];
    float gradients[width];
    float factors[width];
    float carried[width] = {};
    if constexpr (add_residual) widen(carried, residual[p]);
    widen(values, x[p]);
    widen(gradients, dy[p]);
    load(factors, a.gamma + Shape::column(p));
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float xhat = (values[i] - mean) * rstd;
      gradients[i] = carried[i] + rstd * (gradients[i] * factors[i] - g_mean - xhat * g_xhat_mean);
    }
    store(a.dx + at + c, gradients);
  }
}

// Calls launch(RowShape) with the smallest shape that holds a row. Two vectors a lane: few registers, so that many rows
// are in flight.
template <class T, class Launch>
void with_row_shape(Index channels, const char* name, const Launch& launch) {
  constexpr int width = vector_width<T>;
  using Longest = RowShape<width, 32, 2>;
  using Unaligned = RowShape<1, 16, 8>;
  if (channels % width != 0) {
    if (channels <= Unaligned::capacity) return launch(Unaligned{});
  } else {
    if (channels <= RowShape<width, 1, 2>::capacity) return launch(RowShape<width, 1, 2>{});
    if (channels <= RowShape<width, 2, 2>::capacity) return launch(RowShape<width, 2, 2>{});
    if (channels <= RowShape<width, 4, 2>::capacity) return launch(RowShape<width, 4, 2>{});
    if (channels <= RowShape<width, 8, 2>::capacity) return launch(RowShape<width, 8, 2>{});
    if (channels <= RowShape<width, 16, 2>::capacity) return launch(RowShape<width, 16, 2>{});
    if (channels <= Longest::capacity) return launch(Longest{});
  }
  throw Error(std::string(name) + ": rows of " + std::to_string(channels) + " elements are not supported: at most " +
              std::to_string(Longest::capacity) + ", or " + std::to_string(Unaligned::capacity) +
              " if no multiple of " + std::to_string(width));
}

template <bool centred, class T>
void norm_forward(const NormForward<T>& a, cudaStream_t stream, const char* name) {
  with_row_shape<T>(a.channels, name, [&]<class Shape>(Shape) {
    norm_forward_kernel<T, Shape, centred><<<blocks_for(a.rows, Shape::rows_per_block), Shape::threads, 0, stream>>>(a);
    check_launch(name);
  });
}

template <bool centred, class T>
void norm_input_gradient(const NormInputGradient<T>& a, cudaStream_t stream, const char* name) {
  with_row_shape<T>(a.channels, name, [&]<class Shape>(Shape) {
    auto* const kernel = a.residual != nullptr ? norm_input_gradient_kernel<T, Shape, centred, true>
                                               : norm_input_gradient_kernel<T, Shape, centred, false>;
    kernel<<<blocks_for(a.rows, Shape::rows_per_block), Shape::threads, 0, stream>>>(a);
    check_launch(name);
  });
}

}  // namespace stagecraft::kernels::cuda
