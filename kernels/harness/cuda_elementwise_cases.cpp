#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cuda/bias.hpp"
#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gelu.hpp"
#include "kernels/cuda/memset_nodes.hpp"
#include "kernels/cuda/rope.hpp"
#include "kernels/cuda/swiglu.hpp"
#include "kernels/cuda/token_feed.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

// As kernels::cpu::rope_table, in double: what the operation reads is rounded to float like any tensor.
void rope_table(double* table, Index time, Index head_size, double theta) {
  const Index half = head_size / 2;
  for (Index t = 0; t < time; ++t) {
    for (Index i = 0; i < half; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_size);
      const double angle = static_cast<double>(t) * std::pow(theta, exponent);
      table[t * head_size + i] = std::cos(angle);
      table[t * head_size + half + i] = std::sin(angle);
    }
  }
}

// One operation on each element.
void add_elementwise_case(CudaCases& cases, std::string name, std::vector<Tensor> tensors,
                          std::function<void(Dev, cudaStream_t)> candidate,
                          const std::function<double(D, Index)>& each) {
  const Index count = tensors.front().count;
  cases.push_back({.op = "elementwise",
                   .name = fmt::format("{} n={}", name, count),
                   .tensors = std::move(tensors),
                   .candidate = std::move(candidate),
                   .reference = [=](D d) {
                     for (Index i = 0; i < count; ++i) d[0][i] = each(d, i);
                   }});
}

}  // namespace

template <class T>
void add_bias(CudaCases& cases, Index rows, Index channels) {
  const std::string shape = fmt::format("{} N={} C={}", type_name<T>(), rows, channels);
  const Index n = rows * channels;
  cases.push_back(
      {.op = "bias",
       .name = "bias_add " + shape,
       .tensors = {tensor_of<T>("y", Role::output, n), tensor_of<T>("x", Role::input, n),
                   tensor_of<T>("bias", Role::input, channels)},
       .candidate = [=](Dev d,
                        cudaStream_t s) { cuda::bias_add<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), rows, channels, s); },
       .reference =
           [=](D d) {
             for (Index i = 0; i < n; ++i) d[0][i] = d[1][i] + d[2][i % channels];
           }});
  for (const bool accumulate : {false, true}) {
    cases.push_back({.op = "bias",
                     .name = (accumulate ? "bias_gradient accumulate " : "bias_gradient ") + shape,
                     .tensors = {{"d_bias", accumulate ? Role::in_out : Role::output, channels},
                                 tensor_of<T>("dy", Role::input, n),
                                 {"workspace", Role::scratch, cuda::bias_gradient_workspace_floats(rows, channels)}},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::bias_gradient<T>(d.at<float>(0), d.at<T>(1), rows, channels, d.at<float>(2),
                                                  accumulate_if(accumulate), s);
                         },
                     .reference =
                         [=](D d) {
                           if (!accumulate) zero(d[0], channels);
                           for (Index i = 0; i < n; ++i) d[0][i % channels] += d[1][i];
                         }});
  }
}

template <class T>
void add_gelu(CudaCases& cases, Index rows, Index channels, double range) {
  const Index n = rows * channels;
  const Tensor x = tensor_of<T>("x", Role::input, n, -range, range);
  const Tensor bias = tensor_of<T>("bias", Role::input, channels);
  for (const bool biased : {false, true}) {
    const std::string shape =
        fmt::format("{} N={} C={} |x|<{}{}", type_name<T>(), rows, channels, range, biased ? " bias" : "");
    const auto sum = [=](const double* values, const double* addends) {
      std::vector<double> z(values, values + n);
      for (Index i = 0; biased && i < n; ++i) z[static_cast<std::size_t>(i)] += addends[i % channels];
      return z;
    };
    cases.push_back({.op = "gelu",
                     .name = "gelu_forward " + shape,
                     .tensors = {tensor_of<T>("y", Role::output, n), x, bias},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::gelu_forward<T>(d.at<T>(0), d.at<T>(1), biased ? d.at<T>(2) : nullptr, rows, channels,
                                                 s);
                         },
                     .reference = [=](D d) { reference::gelu_forward(d[0], sum(d[1], d[2]).data(), n); }});
    cases.push_back({.op = "gelu",
                     .name = "gelu_input_gradient " + shape,
                     .tensors = {tensor_of<T>("dx", Role::output, n), tensor_of<T>("dy", Role::input, n), x, bias},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::gelu_input_gradient<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2),
                                                        biased ? d.at<T>(3) : nullptr, rows, channels, s);
                         },
                     .reference = [=](D d) { reference::gelu_input_gradient(d[0], d[1], sum(d[2], d[3]).data(), n); }});
  }
}

template <class T>
void add_swiglu(CudaCases& cases, Index rows, Index features, double range) {
  const std::string shape = fmt::format("{} N={} F={} |x|<{}", type_name<T>(), rows, features, range);
  const Index n = rows * features;
  const Tensor gate_up = tensor_of<T>("gate_up", Role::input, 2 * n, -range, range);
  cases.push_back(
      {.op = "swiglu",
       .name = "swiglu_forward " + shape,
       .tensors = {tensor_of<T>("y", Role::output, n), gate_up},
       .candidate = [=](Dev d, cudaStream_t s) { cuda::swiglu_forward<T>(d.at<T>(0), d.at<T>(1), rows, features, s); },
       .reference = [=](D d) { reference::swiglu_forward(d[0], d[1], rows, features); }});
  cases.push_back(
      {.op = "swiglu",
       .name = "swiglu_input_gradient " + shape,
       .tensors = {tensor_of<T>("d_gate_up", Role::output, 2 * n), tensor_of<T>("dy", Role::input, n), gate_up},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             cuda::swiglu_input_gradient<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), rows, features, s);
           },
       .reference = [=](D d) { reference::swiglu_input_gradient(d[0], d[1], d[2], rows, features); }});
}

// Only the first `heads` heads of rows of `stride` elements turn.
template <class T>
void add_rope(CudaCases& cases, Index batch, Index time, Index heads, Index head_size, Index stride) {
  constexpr double theta = 10000.0;
  for (const bool forward : {true, false}) {
    cases.push_back(
        {.op = "rope",
         .name = fmt::format("{} {} B={} T={} H={} D={} stride={}", forward ? "rope_forward" : "rope_input_gradient",
                             type_name<T>(), batch, time, heads, head_size, stride),
         .tensors = {tensor_of<T>("x", Role::in_out, batch * time * stride), {"table", Role::input, time * head_size}},
         .candidate =
             [=](Dev d, cudaStream_t s) {
               const auto rotate = forward ? cuda::rope_forward<T> : cuda::rope_input_gradient<T>;
               rotate(d.at<T>(0), d.at<float>(1), batch, time, heads, head_size, stride, s);
             },
         .reference =
             [=](D d) { reference::rope(d[0], theta, forward ? 1.0 : -1.0, batch, time, heads, head_size, stride); },
         .prepare = [=](D d) { rope_table(d[1], time, head_size, theta); },
         .bytes = 2.0 * sizeof(T) * static_cast<double>(batch * time * heads * head_size)});
  }
}

void add_elementwise(CudaCases& cases, Index count) {
  const auto first = [](D d, Index i) { return d[1][i]; };
  const auto sum = [](D d, Index i) { return d[1][i] + d[2][i]; };
  const auto added = [](D d, Index i) { return d[0][i] + d[1][i]; };
  const Tensor single_in{"x", Role::input, count};
  const Tensor single_out{"y", Role::output, count};
  const Tensor single_changed{"y", Role::in_out, count};
  const Tensor half_in = tensor_of<Bf16>("x", Role::input, count);
  const Tensor half_out = tensor_of<Bf16>("y", Role::output, count);
  add_elementwise_case(
      cases, "cast fp32 to bf16", {half_out, single_in},
      [=](Dev d, cudaStream_t s) { cuda::cast(d.at<Bf16>(0), d.at<float>(1), count, s); }, first);
  add_elementwise_case(
      cases, "cast bf16 to fp32", {single_out, half_in},
      [=](Dev d, cudaStream_t s) { cuda::cast(d.at<float>(0), d.at<Bf16>(1), count, s); }, first);
  add_elementwise_case(
      cases, "copy fp32", {single_out, single_in},
      [=](Dev d, cudaStream_t s) { cuda::copy<float>(d.at<float>(0), d.at<float>(1), count, s); }, first);
  add_elementwise_case(
      cases, "copy bf16", {half_out, half_in},
      [=](Dev d, cudaStream_t s) { cuda::copy<Bf16>(d.at<Bf16>(0), d.at<Bf16>(1), count, s); }, first);
  add_elementwise_case(
      cases, "add fp32", {single_out, single_in, single_in},
      [=](Dev d, cudaStream_t s) { cuda::add<float>(d.at<float>(0), d.at<float>(1), d.at<float>(2), count, s); }, sum);
  add_elementwise_case(
      cases, "add bf16", {half_out, half_in, half_in},
      [=](Dev d, cudaStream_t s) { cuda::add<Bf16>(d.at<Bf16>(0), d.at<Bf16>(1), d.at<Bf16>(2), count, s); }, sum);
  add_elementwise_case(
      cases, "accumulate fp32", {single_changed, single_in},
      [=](Dev d, cudaStream_t s) { cuda::accumulate(d.at<float>(0), d.at<const float>(1), count, s); }, added);
  add_elementwise_case(
      cases, "accumulate bf16", {single_changed, half_in},
      [=](Dev d, cudaStream_t s) { cuda::accumulate(d.at<float>(0), d.at<const Bf16>(1), count, s); }, added);
  add_elementwise_case(
      cases, "scale fp32", {single_changed},
      [=](Dev d, cudaStream_t s) { cuda::scale(d.at<float>(0), -1.5F, count, s); },
      [](D d, Index i) { return -1.5 * d[0][i]; });
}

namespace {

// Floats [first, first + count), with every element of `element_size` bytes set to `value`.
struct Memset {
  Index first, count;
  unsigned element_size, value;

  cudaMemsetParams parameters(float* tensor) const {
    cudaMemsetParams result{};
    result.dst = tensor + first;
    result.elementSize = element_size;
    result.value = value;
    result.width = static_cast<std::size_t>(count) * sizeof(float) / element_size;
    result.height = 1;
    return result;
  }
  float stored() const {
    const unsigned repeated = element_size == 4 ? 1U : element_size == 2 ? 0x10001U : 0x1010101U;
    return std::bit_cast<float>(value * repeated);
  }
};

// The memsets one after the other, in a graph that has been relieved of them.
void launch_replaced(const std::vector<Memset>& memsets, float* tensor, cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaGraphCreate(&graph, 0));
  cudaGraphNode_t last = nullptr;
  for (const Memset& memset : memsets) {
    const cudaMemsetParams parameters = memset.parameters(tensor);
    cudaGraphNode_t node = nullptr;
    STAGECRAFT_CUDA_CHECK(cudaGraphAddMemsetNode(&node, graph, &last, last == nullptr ? 0 : 1, &parameters));
    last = node;
  }
  cuda::replace_memset_nodes(graph);
  std::vector<cudaGraphNode_t> nodes(memsets.size());
  std::size_t count = nodes.size();
  STAGECRAFT_CUDA_CHECK(cudaGraphGetNodes(graph, nodes.data(), &count));
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    STAGECRAFT_CUDA_CHECK(cudaGraphNodeGetType(node, &type));
    if (type != cudaGraphNodeTypeKernel) throw cuda::Error("a memset is left in the graph");
  }
  cudaGraphExec_t executable = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  STAGECRAFT_CUDA_CHECK(cudaGraphDestroy(graph));
  STAGECRAFT_CUDA_CHECK(cudaGraphLaunch(executable, stream));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  STAGECRAFT_CUDA_CHECK(cudaGraphExecDestroy(executable));
}

}  // namespace

// All parts of x in their order, taken from where they lie.
void add_take_next(CudaCases& cases, Index parts, Index count) {
  const auto take_all = [=](Dev d, cudaStream_t stream) {
    const cuda::Buffer position(sizeof(std::int32_t));
    auto* const on_device = reinterpret_cast<std::int32_t*>(position.data());
    STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(on_device, 0, sizeof(std::int32_t), stream));
    for (Index part = 0; part < parts; ++part) {
      cuda::take_next(d.at<std::int32_t>(0) + part * count, d.at<std::int32_t>(1), count, on_device, stream);
    }
    STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  };
  cases.push_back({.op = "token_feed",
                   .name = fmt::format("take_next parts={} N={}", parts, count),
                   .tensors = {{"y", Role::output, parts * count}, {"x", Role::input, parts * count}},
                   .candidate = take_all,
                   .reference = [=](D d) { std::copy_n(d[1], parts * count, d[0]); }});
}

// Later ones overwrite parts of earlier ones; the second does not begin where vectors do.
void add_memset_nodes(CudaCases& cases, Index count) {
  const std::vector<Memset> memsets{{0, count, 4, 0x3f800000}, {1, 5, 2, 0x3f80}, {4, count / 2, 1, 0x3f}};
  cases.push_back({.op = "memset_nodes",
                   .name = fmt::format("memset_nodes N={}", count),
                   .tensors = {{"y", Role::output, count}},
                   .candidate = [=](Dev d, cudaStream_t s) { launch_replaced(memsets, d.at<float>(0), s); },
                   .reference =
                       [=](D d) {
                         for (const Memset& memset : memsets)
                           std::fill_n(d[0] + memset.first, memset.count, memset.stored());
                       }});
}

template void add_bias<float>(CudaCases&, Index, Index);
template void add_bias<Bf16>(CudaCases&, Index, Index);
template void add_gelu<float>(CudaCases&, Index, Index, double);
template void add_gelu<Bf16>(CudaCases&, Index, Index, double);
template void add_swiglu<float>(CudaCases&, Index, Index, double);
template void add_swiglu<Bf16>(CudaCases&, Index, Index, double);
template void add_rope<float>(CudaCases&, Index, Index, Index, Index, Index);
template void add_rope<Bf16>(CudaCases&, Index, Index, Index, Index, Index);

}  // namespace stagecraft::kernels
