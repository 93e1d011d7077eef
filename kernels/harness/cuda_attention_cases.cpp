#include <cmath>

#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

using Doubles = std::vector<double>;

// Offsets of k and v in a packed row; q is at 0.
Index k_at(const AttentionShape& s) { return s.heads * s.head_size; }
Index v_at(const AttentionShape& s) { return k_at(s) + s.kv_heads * s.head_size; }
Index rows(const AttentionShape& s) { return s.batch * s.time; }

std::string text(const AttentionShape& s, const char* type, double range) {
  return fmt::format("{} B={} T={} H={} KV={} D={} |x|<{}", type, s.batch, s.time, s.heads, s.kv_heads, s.head_size,
                     range);
}

// One of the products over the pairs below the diagonal.
double product_flops(const AttentionShape& s) {
  const std::int64_t pairs = s.time * (s.time + 1) / 2;
  return 2.0 * static_cast<double>(s.batch * s.heads * s.head_size * pairs);
}

Doubles probabilities(const AttentionShape& s) {
  return Doubles(static_cast<std::size_t>(s.batch * s.heads * s.time * s.time));
}

// The logarithm of the sum of the exponentiated scores, which the reference does not return: the score of a query with
// the first key, less the logarithm of its probability.
void log_sums(double* log_sum, const Doubles& p, const double* q, const double* k, const AttentionShape& s) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_size));
  for (Index b = 0; b < s.batch; ++b) {
    for (Index h = 0; h < s.heads; ++h) {
      for (Index t = 0; t < s.time; ++t) {
        const double* query = q + (b * s.time + t) * s.q_stride + h * s.head_size;
        const double* key = k + b * s.time * s.kv_stride + h / (s.heads / s.kv_heads) * s.head_size;
        double score = 0.0;
        for (Index d = 0; d < s.head_size; ++d) score += query[d] * key[d] * scale;
        const Index row = (b * s.heads + h) * s.time + t;
        log_sum[row] = score - std::log(p[static_cast<std::size_t>(row * s.time)]);
      }
    }
  }
}

// o, log_sum, qkv
void forward_reference(D d, const AttentionShape& s) {
  Doubles p = probabilities(s);
  reference::attention_forward(d[0], p.data(), d[2], d[2] + k_at(s), d[2] + v_at(s), s);
  log_sums(d[1], p, d[2], d[2] + k_at(s), s);
}

// dqkv, d_o, o, log_sum, qkv: makes o and log_sum.
void backward_prepare(D d, const AttentionShape& s) {
  Doubles p = probabilities(s);
  reference::attention_forward(d[2], p.data(), d[4], d[4] + k_at(s), d[4] + v_at(s), s);
  log_sums(d[3], p, d[4], d[4] + k_at(s), s);
}

void backward_reference(D d, const AttentionShape& s) {
  Doubles p = probabilities(s);
  Doubles o(static_cast<std::size_t>(rows(s) * s.heads * s.head_size));
  reference::attention_forward(o.data(), p.data(), d[4], d[4] + k_at(s), d[4] + v_at(s), s);
  reference::attention_input_gradient(d[0], d[0] + k_at(s), d[0] + v_at(s), d[1], p.data(), d[4], d[4] + k_at(s),
                                      d[4] + v_at(s), s);
}

template <class T>
std::vector<Tensor> forward_tensors(const AttentionShape& s, double range) {
  return {tensor_of<T>("o", Role::output, rows(s) * s.heads * s.head_size),
          {"log_sum", Role::output, rows(s) * s.heads},
          tensor_of<T>("qkv", Role::input, rows(s) * s.q_stride, -range, range)};
}

template <class T>
std::vector<Tensor> backward_tensors(const AttentionShape& s, double range) {
  const Index o_count = rows(s) * s.heads * s.head_size;
  return {tensor_of<T>("dqkv", Role::output, rows(s) * s.q_stride),
          tensor_of<T>("d_o", Role::input, o_count),
          tensor_of<T>("o", Role::input, o_count),
          {"log_sum", Role::input, rows(s) * s.heads},
          tensor_of<T>("qkv", Role::input, rows(s) * s.q_stride, -range, range)};
}

}  // namespace

AttentionShape packed_attention(Index batch, Index time, Index heads, Index kv_heads, Index head_size) {
  const Index stride = (heads + 2 * kv_heads) * head_size;
  return {batch, time, heads, kv_heads, head_size, stride, stride};
}

template <class T>
void add_attention(CudaCases& cases, const AttentionShape& s, double range) {
  const std::string shape = text(s, type_name<T>(), range);
  // A score s in single precision is off by up to s * 2^-24, which is the relative error of its probability.
  const double exponent = 2.0 * range * range * std::sqrt(static_cast<double>(s.head_size)) * 0x1p-24;
  const Index k = k_at(s);
  const Index v = v_at(s);
  cases.push_back({.op = "attention",
                   .name = "attention_forward " + shape,
                   .tensors = forward_tensors<T>(s, range),
                   .candidate =
                       [=](const DeviceArguments& d, cudaStream_t stream) {
                         const T* q = d.at<T>(2);
                         cuda::attention_forward(d.at<T>(0), d.at<float>(1), q, q + k, q + v, s, stream);
                       },
                   .reference = [=](D d) { forward_reference(d, s); },
                   .flops = 2.0 * product_flops(s),
                   .tolerance = 1e-5 + exponent});
  std::vector<Tensor> tensors = backward_tensors<T>(s, range);
  tensors.push_back({"workspace", Role::scratch, cuda::attention_input_gradient_workspace_floats(s)});
  cases.push_back({.op = "attention",
                   .name = "attention_input_gradient " + shape,
                   .tensors = std::move(tensors),
                   .candidate =
                       [=](const DeviceArguments& d, cudaStream_t stream) {
                         T* dq = d.at<T>(0);
                         const T* q = d.at<T>(4);
                         cuda::attention_input_gradient<T>(dq, dq + k, dq + v, d.at<T>(1), d.at<T>(2), d.at<float>(3),
                                                           q, q + k, q + v, s, d.at<float>(5), stream);
                       },
                   .reference = [=](D d) { backward_reference(d, s); },
                   .prepare = [=](D d) { backward_prepare(d, s); },
                   .flops = 5.0 * product_flops(s),
                   // o as it is stored enters delta, in the gradients of all keys and queries alike.
                   .tolerance = 1e-5 + exponent + (sizeof(T) == 2 ? unit_roundoff(Storage::bf16) : 0.0),
                   .scale = sizeof(T) == 2 ? Scale::largest : Scale::rms});
}

// Probabilities and their gradients are rounded to Bf16 before they are multiplied. A sum of products, each off by a
// factor 1 + u, is off by at most u times the sum of their sizes: for o that is at most u times the largest v, and so
// it is compared with the largest element. dq, dk and dv have p or ds rounded so and o through delta; ds is a
// difference, which doubles what its terms contribute.
void add_cudnn_attention(CudaCases& cases, CudaLibraries& libraries, const AttentionShape& s, double range) {
  const std::string shape = text(s, "bf16", range);
  const double u = unit_roundoff(Storage::bf16);
  const Index k = k_at(s);
  const Index v = v_at(s);
  const auto workspace = [&](cuda::CudnnAttention& attention) {
    Tensor scratch{"workspace", Role::scratch, 0};
    try {
      scratch.count = static_cast<Index>((attention.prepare(s) + 3) / 4);
    } catch (const cuda::Error&) {
      // The candidate prepares again and reports it.
    }
    return scratch;
  };
  for (cuda::CudnnAttention* attention : {&libraries.attention, &libraries.deterministic_attention}) {
    const bool fast = attention == &libraries.attention;
    const Tensor scratch = workspace(*attention);
    if (fast) {
      std::vector<Tensor> tensors = forward_tensors<cuda::Bf16>(s, range);
      tensors.push_back(scratch);
      cases.push_back({.op = "cudnn_attention",
                       .name = "cudnn forward " + shape,
                       .tensors = std::move(tensors),
                       .candidate =
                           [=](const DeviceArguments& d, cudaStream_t stream) {
                             const auto* q = d.at<const cuda::Bf16>(2);
                             attention->prepare(s);
                             attention->forward(d.at<cuda::Bf16>(0), d.at<float>(1), q, q + k, q + v, s, d.at<void>(3),
                                                stream);
                           },
                       .reference = [=](D d) { forward_reference(d, s); },
                       .flops = 2.0 * product_flops(s),
                       .tolerance = u,
                       .scale = Scale::largest});
    }
    std::vector<Tensor> tensors = backward_tensors<cuda::Bf16>(s, range);
    tensors.push_back(scratch);
    cases.push_back({.op = "cudnn_attention",
                     .name = (fast ? "cudnn input_gradient " : "cudnn input_gradient deterministic ") + shape,
                     .tensors = std::move(tensors),
                     .candidate =
                         [=](const DeviceArguments& d, cudaStream_t stream) {
                           auto* dq = d.at<cuda::Bf16>(0);
                           const auto* q = d.at<const cuda::Bf16>(4);
                           attention->prepare(s);
                           attention->input_gradient(dq, dq + k, dq + v, d.at<cuda::Bf16>(1), d.at<cuda::Bf16>(2),
                                                     d.at<float>(3), q, q + k, q + v, s, d.at<void>(5), stream);
                         },
                     .reference = [=](D d) { backward_reference(d, s); },
                     .prepare = [=](D d) { backward_prepare(d, s); },
                     .flops = 5.0 * product_flops(s),
                     .tolerance = 5.0 * u,
                     .scale = Scale::largest,
                     .repeatable = !fast});
  }
}

template void add_attention<float>(CudaCases&, const AttentionShape&, double);
template void add_attention<cuda::Bf16>(CudaCases&, const AttentionShape&, double);

}  // namespace stagecraft::kernels
