#include <cmath>
#include <string>

#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/vector.cuh"

namespace stagecraft::kernels::cuda {
namespace {

constexpr int warps_per_block = 4;

// A head's row of D numbers, spread over a warp: lane l holds l, l + 32, ...
template <int parts>
struct Row {
  float values[parts] = {};

  template <class T>
  __device__ static Row read(const T* from, int head_size) {
    Row row;
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const int d = static_cast<int>(threadIdx.x) + i * warp_size;
      if (d < head_size) row.values[i] = widen(from[d]);
    }
    return row;
  }
  template <class T>
  __device__ void write(T* to, int head_size) const {
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const int d = static_cast<int>(threadIdx.x) + i * warp_size;
      if (d < head_size) to[d] = narrow<T>(values[i]);
    }
  }
  template <class T>
  __device__ void write(T* to, int head_size, bool add) {
    if (add) this->add(1.0F, read(to, head_size));
    write(to, head_size);
  }
  __device__ float dot(const Row& other) const {
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < parts; ++i) sum += values[i] * other.values[i];
    return warp_sum(sum);
  }
  __device__ void add(float factor, const Row& other) {
#pragma unroll
    for (int i = 0; i < parts; ++i) values[i] += factor * other.values[i];
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < parts; ++i) values[i] *= factor;
  }
};

// Where things are. `head` is the query's head, or the key's.
struct Places {
  AttentionShape s;
  float scale;
  __device__ Index group() const { return s.heads / s.kv_heads; }
  __device__ Index q(Index b, Index t, Index head) const { return (b * s.time + t) * s.q_stride + head * s.head_size; }
  __device__ Index kv(Index b, Index t, Index head) const {
    return (b * s.kv_time + t) * s.kv_stride + head * s.head_size;
  }
  __device__ Index o(Index b, Index t, Index head) const { return ((b * s.time + t) * s.heads + head) * s.head_size; }
  __device__ Index log_sum(Index b, Index t, Index head) const { return (b * s.heads + head) * s.time + t; }
};

// The (batch, head, time) of this warp, or false past the end.
__device__ bool warp_place(Index batch, Index heads, Index time, Index& b, Index& head, Index& t) {
  const Index place = static_cast<Index>(blockIdx.x) * warps_per_block + threadIdx.y;
  t = place % time;
  head = place / time % heads;
  b = place / (time * heads);
  return b < batch;
}

template <int parts, class T>
__global__ void forward_kernel(T* o, float* log_sum, const T* q, const T* k, const T* v, Places at) {
  Index b, head, t;
  if (!warp_place(at.s.batch, at.s.heads, at.s.time, b, head, t)) return;
  const int size = static_cast<int>(at.s.head_size);
  const Index kv_head = head / at.group();
  const auto query = Row<parts>::read(q + at.q(b, t, head), size);
  Row<parts> sum;
  float maximum = -INFINITY;
  float total = 0.0F;
  for (Index j = 0; j <= at.s.past + t; ++j) {
    const float score = at.scale * query.dot(Row<parts>::read(k + at.kv(b, j, kv_head), size));
    if (score > maximum) {
      const float shrink = expf(maximum - score);
      total *= shrink;
      sum.scale(shrink);
      maximum = score;
    }
    const float p = expf(score - maximum);
    total += p;
    sum.add(p, Row<parts>::read(v + at.kv(b, j, kv_head), size));
  }
  sum.scale(1.0F / total);
  sum.write(o + at.o(b, t, head), size);
  if (threadIdx.x == 0) log_sum[at.log_sum(b, t, head)] = maximum + logf(total);
}

// With p the probabilities and dp = d_o . v: ds = p (dp - delta) / sqrt(D), delta = sum of p dp = d_o . o.
template <int parts, class T>
__global__ void query_gradient_kernel(T* dq, float* delta, const T* d_o, const T* o, const float* log_sum, const T* q,
                                      const T* k, const T* v, Places at) {
  Index b, head, t;
  if (!warp_place(at.s.batch, at.s.heads, at.s.time, b, head, t)) return;
  const int size = static_cast<int>(at.s.head_size);
  const Index kv_head = head / at.group();
  const auto query = Row<parts>::read(q + at.q(b, t, head), size);
  const auto d_out = Row<parts>::read(d_o + at.o(b, t, head), size);
  const float d = d_out.dot(Row<parts>::read(o + at.o(b, t, head), size));
  const float logarithm = log_sum[at.log_sum(b, t, head)];
  Row<parts> sum;
  for (Index j = 0; j <= at.s.past + t; ++j) {
    const auto key = Row<parts>::read(k + at.kv(b, j, kv_head), size);
    const float p = expf(at.scale * query.dot(key) - logarithm);
    const float dp = d_out.dot(Row<parts>::read(v + at.kv(b, j, kv_head), size));
    sum.add(at.scale * p * (dp - d), key);
  }
  sum.write(dq + at.q(b, t, head), size);
  if (threadIdx.x == 0) delta[at.log_sum(b, t, head)] = d;
}

template <int parts, class T>
__global__ void key_gradient_kernel(T* dk, T* dv, const float* delta, const T* d_o, const float* log_sum, const T* q,
                                    const T* k, const T* v, Places at, bool add) {
  Index b, kv_head, j;
  if (!warp_place(at.s.batch, at.s.kv_heads, at.s.past + at.s.time, b, kv_head, j)) return;
  const int size = static_cast<int>(at.s.head_size);
  const auto key = Row<parts>::read(k + at.kv(b, j, kv_head), size);
  const auto value = Row<parts>::read(v + at.kv(b, j, kv_head), size);
  Row<parts> key_sum;
  Row<parts> value_sum;
  for (Index head = kv_head * at.group(); head < (kv_head + 1) * at.group(); ++head) {
    for (Index t = j > at.s.past ? j - at.s.past : 0; t < at.s.time; ++t) {
      const auto query = Row<parts>::read(q + at.q(b, t, head), size);
      const auto d_out = Row<parts>::read(d_o + at.o(b, t, head), size);
      const float p = expf(at.scale * query.dot(key) - log_sum[at.log_sum(b, t, head)]);
      value_sum.add(p, d_out);
      key_sum.add(at.scale * p * (d_out.dot(value) - delta[at.log_sum(b, t, head)]), query);
    }
  }
  key_sum.write(dk + at.kv(b, j, kv_head), size, add);
  value_sum.write(dv + at.kv(b, j, kv_head), size, add);
}

Places places(AttentionShape shape) {
  if (shape.kv_time == 0) shape.kv_time = shape.time;
  return {shape, 1.0F / std::sqrt(static_cast<float>(shape.head_size))};
}

// Calls launch(Constant<parts>) with the parts of a row that a lane holds.
template <class Launch>
void with_parts(Index head_size, const Launch& launch) {
  if (head_size <= 32) return launch(Constant<1>{});
  if (head_size <= 64) return launch(Constant<2>{});
  if (head_size <= 128) return launch(Constant<4>{});
  if (head_size <= largest_plain_head_size) return launch(Constant<8>{});
  throw Error("attention: heads of " + std::to_string(head_size) + " elements are not supported: at most " +
              std::to_string(largest_plain_head_size));
}

const dim3 block(warp_size, warps_per_block);

}  // namespace

void require_whole_sequences(const AttentionShape& s) {
  if (s.past == 0 && (s.kv_time == 0 || s.kv_time == s.time)) return;
  throw Error("attention: " + std::to_string(s.time) + " queries after " + std::to_string(s.past) +
              " keys: slices of sequences are not supported through cuDNN");
}

template <class T>
void attention_forward(T* o, float* log_sum, const T* q, const T* k, const T* v, const AttentionShape& s,
                       cudaStream_t stream) {
  with_parts(s.head_size, [&]<int parts>(Constant<parts>) {
    forward_kernel<parts>
        <<<blocks_for(s.batch * s.heads * s.time, warps_per_block), block, 0, stream>>>(o, log_sum, q, k, v, places(s));
    check_launch("attention_forward");
  });
}

template <class T>
void attention_input_gradient(T* dq, T* dk, T* dv, const T* d_o, const T* o, const float* log_sum, const T* q,
                              const T* k, const T* v, const AttentionShape& s, float* workspace, cudaStream_t stream,
                              bool add) {
  with_parts(s.head_size, [&]<int parts>(Constant<parts>) {
    query_gradient_kernel<parts><<<blocks_for(s.batch * s.heads * s.time, warps_per_block), block, 0, stream>>>(
        dq, workspace, d_o, o, log_sum, q, k, v, places(s));
    check_launch("attention_input_gradient");
    const Index keys = s.batch * s.kv_heads * (s.past + s.time);
    key_gradient_kernel<parts><<<blocks_for(keys, warps_per_block), block, 0, stream>>>(dk, dv, workspace, d_o, log_sum,
                                                                                        q, k, v, places(s), add);
    check_launch("attention_input_gradient");
  });
}

#define STAGECRAFT_INSTANTIATE(T)                                                                                    \
  template void attention_forward(T*, float*, const T*, const T*, const T*, const AttentionShape&, cudaStream_t);    \
  template void attention_input_gradient(T*, T*, T*, const T*, const T*, const float*, const T*, const T*, const T*, \
                                         const AttentionShape&, float*, cudaStream_t, bool);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels::cuda
