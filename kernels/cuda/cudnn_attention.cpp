#include "kernels/cuda/cudnn_attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/cudnn_graph.hpp"
#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {
namespace {

struct DestroyHandle {
  using pointer = cudnnHandle_t;
  void operator()(cudnnHandle_t handle) const { static_cast<void>(cudnnDestroy(handle)); }
};

std::unique_ptr<cudnnHandle_t, DestroyHandle> make_handle() {
  cudnnHandle_t handle = nullptr;
  STAGECRAFT_CUDA_CHECK(cudnnCreate(&handle));
  return std::unique_ptr<cudnnHandle_t, DestroyHandle>(handle);
}

auto key(const AttentionShape& s) {
  return std::make_tuple(s.batch, s.time, s.heads, s.kv_heads, s.head_size, s.q_stride, s.kv_stride);
}
using Key = decltype(key({}));

// (B, heads, T, D) as it lies in rows `stride` apart.
Layout strided(const AttentionShape& s, std::int64_t heads, std::int64_t stride) {
  return {{s.batch, heads, s.time, s.head_size}, {s.time * stride, s.head_size, stride, 1}};
}
Layout q_layout(const AttentionShape& s) { return strided(s, s.heads, s.q_stride); }
Layout kv_layout(const AttentionShape& s) { return strided(s, s.kv_heads, s.kv_stride); }
Layout o_layout(const AttentionShape& s) { return strided(s, s.heads, s.heads * s.head_size); }
Layout score_layout(const AttentionShape& s) { return packed(s.batch, s.heads, s.time, s.time); }
Layout row_layout(const AttentionShape& s) { return packed(s.batch, s.heads, s.time, 1); }

constexpr cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16;
constexpr cudnnDataType_t fp32 = CUDNN_DATA_FLOAT;

// What hides a score: small enough that its exponential is 0, and still finite.
constexpr float hidden = std::numeric_limits<float>::lowest();
constexpr float one = 1.0F;

// The scores, or with `mask` those above the diagonal hidden.
TensorId masked(CudnnGraph& g, TensorId scores, TensorId hidden_value, const AttentionShape& s) {
  const Layout layout = score_layout(s);
  const TensorId row = g.virtual_tensor(CUDNN_DATA_INT32, layout);
  const TensorId column = g.virtual_tensor(CUDNN_DATA_INT32, layout);
  const TensorId visible = g.virtual_tensor(CUDNN_DATA_BOOLEAN, layout);
  const TensorId result = g.virtual_tensor(fp32, layout);
  g.index(row, scores, 2);
  g.index(column, scores, 3);
  g.compare(visible, CUDNN_POINTWISE_CMP_GE, row, column);
  g.select(result, visible, scores, hidden_value);
  return result;
}

struct ForwardPlan {
  TensorId q, k, v, o, log_sum, scale, hidden_value;
  CudnnPlan plan;
};

ForwardPlan make_forward(const CudnnDevice& device, const AttentionShape& s) {
  CudnnGraph g;
  const Layout scores = score_layout(s);
  const Layout rows = row_layout(s);
  const TensorId q = g.tensor(bf16, q_layout(s));
  const TensorId k = g.tensor(bf16, transposed(kv_layout(s)));
  const TensorId v = g.tensor(bf16, kv_layout(s));
  const TensorId o = g.tensor(bf16, o_layout(s));
  const TensorId log_sum = g.tensor(fp32, rows);
  const TensorId scale = g.scalar();
  const TensorId hidden_value = g.scalar();

  const TensorId product = g.virtual_tensor(fp32, scores);
  const TensorId scaled = g.virtual_tensor(fp32, scores);
  g.matmul(product, q, k);
  g.binary(scaled, CUDNN_POINTWISE_MUL, product, scale);
  const TensorId score = masked(g, scaled, hidden_value, s);

  const TensorId maximum = g.virtual_tensor(fp32, rows);
  const TensorId shifted = g.virtual_tensor(fp32, scores);
  const TensorId exponential = g.virtual_tensor(fp32, scores);
  const TensorId sum = g.virtual_tensor(fp32, rows);
  const TensorId logarithm = g.virtual_tensor(fp32, rows);
  const TensorId probability = g.virtual_tensor(bf16, scores);
  g.reduce(maximum, CUDNN_REDUCE_TENSOR_MAX, score);
  g.binary(shifted, CUDNN_POINTWISE_SUB, score, maximum);
  g.unary(exponential, CUDNN_POINTWISE_EXP, shifted);
  g.reduce(sum, CUDNN_REDUCE_TENSOR_ADD, exponential);
  g.unary(logarithm, CUDNN_POINTWISE_LOG, sum);
  g.binary(log_sum, CUDNN_POINTWISE_ADD, maximum, logarithm);
  g.binary(probability, CUDNN_POINTWISE_DIV, exponential, sum);
  g.matmul(o, probability, v);
  return {q, k, v, o, log_sum, scale, hidden_value, std::move(g).plan(device, "the attention forward")};
}

struct BackwardPlan {
  TensorId q, k, v, o, d_o, log_sum, dq, dk, dv, delta;
  TensorId dq_sum;  // -1 in the deterministic form
  TensorId scale, hidden_value, one_value;
  std::size_t delta_bytes, dq_sum_bytes;
  CudnnPlan plan;
};

constexpr std::size_t aligned(std::int64_t bytes) { return (static_cast<std::size_t>(bytes) + 255) / 256 * 256; }

// d = transposed(a) b, summed over the query heads that share a key head.
void grouped_product(CudnnGraph& g, TensorId d, TensorId a, TensorId b, const AttentionShape& s) {
  const TensorId turned = g.virtual_tensor(bf16, transposed(score_layout(s)));
  g.reshape(turned, a);
  if (s.heads == s.kv_heads) {
    g.matmul(d, turned, b);
    return;
  }
  const TensorId by_head = g.virtual_tensor(bf16, packed(s.batch, s.heads, s.time, s.head_size));
  g.matmul(by_head, turned, b);
  g.reduce(d, CUDNN_REDUCE_TENSOR_ADD, by_head);
}

BackwardPlan make_backward(const CudnnDevice& device, const AttentionShape& s, AttentionBackward backward) {
  CudnnGraph g;
  const Layout scores = score_layout(s);
  const Layout rows = row_layout(s);
  const TensorId q = g.tensor(bf16, q_layout(s));
  const TensorId k = g.tensor(bf16, transposed(kv_layout(s)));
  const TensorId v = g.tensor(bf16, transposed(kv_layout(s)));
  const TensorId o = g.tensor(bf16, o_layout(s));
  const TensorId d_o = g.tensor(bf16, o_layout(s));
  const TensorId log_sum = g.tensor(fp32, rows);
  const TensorId dq = g.tensor(bf16, q_layout(s));
  const TensorId dk = g.tensor(bf16, kv_layout(s));
  const TensorId dv = g.tensor(bf16, kv_layout(s));
  const TensorId delta = g.tensor(fp32, rows);
  const TensorId scale = g.scalar();
  const TensorId hidden_value = g.scalar();
  const TensorId one_value = g.scalar();

  // delta = sum of d_o o. The multiplication by one is part of the pattern that cuDNN recognises.
  const TensorId product =
      g.virtual_tensor(fp32, {{s.batch, s.heads, s.time, s.head_size},
                              {s.heads * s.time * s.head_size, s.time * s.head_size, s.heads * s.head_size, 1}});
  const TensorId sum = g.virtual_tensor(fp32, rows);
  g.binary(product, CUDNN_POINTWISE_MUL, d_o, o);
  g.reduce(sum, CUDNN_REDUCE_TENSOR_ADD, product);
  g.binary(delta, CUDNN_POINTWISE_MUL, sum, one_value);

  // p = exp(q k^T scale - log_sum)
  const TensorId raw_score = g.virtual_tensor(fp32, scores);
  const TensorId score = g.virtual_tensor(fp32, scores);
  const TensorId shifted = g.virtual_tensor(fp32, scores);
  g.matmul(raw_score, q, k);
  g.binary(score, CUDNN_POINTWISE_MUL, raw_score, scale);
  g.binary(shifted, CUDNN_POINTWISE_SUB, score, log_sum);
  const TensorId visible = masked(g, shifted, hidden_value, s);
  const TensorId probability = g.virtual_tensor(fp32, scores);
  g.unary(probability, CUDNN_POINTWISE_EXP, visible);
  grouped_product(g, dv, probability, d_o, s);

  // ds = p (d_o v^T - delta) scale
  const TensorId dp = g.virtual_tensor(fp32, scores);
  const TensorId centred = g.virtual_tensor(fp32, scores);
  const TensorId weighted = g.virtual_tensor(fp32, scores);
  const TensorId ds = g.virtual_tensor(fp32, scores);
  g.matmul(dp, d_o, v);
  g.binary(centred, CUDNN_POINTWISE_SUB, dp, delta);
  g.binary(weighted, CUDNN_POINTWISE_MUL, centred, probability);
  g.binary(ds, CUDNN_POINTWISE_MUL, weighted, scale);
  grouped_product(g, dk, ds, q, s);

  const TensorId keys = g.virtual_tensor(bf16, kv_layout(s));
  g.reshape(keys, k);
  TensorId dq_sum = -1;
  std::int64_t dq_sum_floats = 0;
  if (backward == AttentionBackward::fast) {
    dq_sum = g.tensor(fp32, packed(s.batch, s.heads, s.time, s.head_size));
    dq_sum_floats = s.batch * s.heads * s.time * s.head_size;
    g.matmul(dq_sum, ds, keys);
    g.unary(dq, CUDNN_POINTWISE_IDENTITY, dq_sum);
  } else {
    g.matmul(dq, ds, keys);
  }
  return {q,
          k,
          v,
          o,
          d_o,
          log_sum,
          dq,
          dk,
          dv,
          delta,
          dq_sum,
          scale,
          hidden_value,
          one_value,
          aligned(4 * s.batch * s.heads * s.time),
          aligned(4 * dq_sum_floats),
          std::move(g).plan(device, "the attention backward")};
}

float scale_of(const AttentionShape& s) { return 1.0F / std::sqrt(static_cast<float>(s.head_size)); }

}  // namespace

struct CudnnAttention::State {
  struct Plans {
    ForwardPlan forward;
    BackwardPlan backward;
  };
  std::unique_ptr<cudnnHandle_t, DestroyHandle> handle;  // null where the device is not here
  CudnnDevice device;
  AttentionBackward backward;
  std::map<Key, Plans> plans = {};

  const Plans& at(const AttentionShape& shape) const { return plans.at(key(shape)); }
};

CudnnAttention::CudnnAttention(AttentionBackward backward) {
  auto handle = make_handle();
  CudnnDevice device(handle.get());
  state_ = std::make_unique<State>(std::move(handle), std::move(device), backward);
}
CudnnAttention::CudnnAttention(AttentionBackward backward, const std::string& device_properties)
    : state_(std::make_unique<State>(nullptr, CudnnDevice(device_properties), backward)) {}
CudnnAttention::~CudnnAttention() = default;
CudnnAttention::CudnnAttention(CudnnAttention&&) noexcept = default;
CudnnAttention& CudnnAttention::operator=(CudnnAttention&&) noexcept = default;

std::string CudnnAttention::device_properties() const { return state_->device.properties(); }

std::size_t CudnnAttention::prepare(const AttentionShape& shape) {
  require_whole_sequences(shape);
  auto found = state_->plans.find(key(shape));
  if (found == state_->plans.end()) {
    const CudnnDevice& device = state_->device;
    State::Plans plans{make_forward(device, shape), make_backward(device, shape, state_->backward)};
    found = state_->plans.emplace(key(shape), std::move(plans)).first;
  }
  const auto& [forward, backward] = found->second;
  return std::max(forward.plan.workspace_bytes(),
                  backward.delta_bytes + backward.dq_sum_bytes + backward.plan.workspace_bytes());
}

void CudnnAttention::forward(Bf16* o, float* log_sum, const Bf16* q, const Bf16* k, const Bf16* v,
                             const AttentionShape& shape, void* workspace, cudaStream_t stream) {
  const ForwardPlan& p = state_->at(shape).forward;
  const float scale = scale_of(shape);
  const std::array<Binding, 7> bindings{
      {{p.q, q}, {p.k, k}, {p.v, v}, {p.o, o}, {p.log_sum, log_sum}, {p.scale, &scale}, {p.hidden_value, &hidden}}};
  STAGECRAFT_CUDA_CHECK(cudnnSetStream(state_->handle.get(), stream));
  p.plan.run(state_->handle.get(), bindings, workspace);
}

void CudnnAttention::input_gradient(Bf16* dq, Bf16* dk, Bf16* dv, const Bf16* d_o, const Bf16* o, const float* log_sum,
                                    const Bf16* q, const Bf16* k, const Bf16* v, const AttentionShape& shape,
                                    void* workspace, cudaStream_t stream) {
  const BackwardPlan& p = state_->at(shape).backward;
  const float scale = scale_of(shape);
  auto* const delta = static_cast<std::byte*>(workspace);
  std::byte* const dq_sum = delta + p.delta_bytes;
  std::byte* const rest = dq_sum + p.dq_sum_bytes;
  std::vector<Binding> bindings{
      {p.q, q},           {p.k, k},   {p.v, v},   {p.o, o},         {p.d_o, d_o},      {p.log_sum, log_sum},
      {p.dq, dq},         {p.dk, dk}, {p.dv, dv}, {p.delta, delta}, {p.scale, &scale}, {p.hidden_value, &hidden},
      {p.one_value, &one}};
  if (p.dq_sum >= 0) bindings.push_back({p.dq_sum, dq_sum});
  STAGECRAFT_CUDA_CHECK(cudnnSetStream(state_->handle.get(), stream));
  p.plan.run(state_->handle.get(), bindings, rest);
}

}  // namespace stagecraft::kernels::cuda
