#include "kernels/harness/cuda_cases.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cuda/bias.hpp"
#include "kernels/cuda/cross_entropy.hpp"
#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/embedding.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gelu.hpp"
#include "kernels/cuda/mean_squared_error.hpp"
#include "kernels/cuda/optimizer.hpp"
#include "kernels/cuda/rope.hpp"
#include "kernels/cuda/swiglu.hpp"
#include "kernels/reference.hpp"

// `d` is a call's tensors, on the device or in double; the numbers in brackets index the list of tensors above them.

namespace stagecraft::kernels {
namespace {

using Index = std::int64_t;
using Dev = const DeviceArguments&;
using D = const Arguments<double>&;
using cuda::Accumulate;
using cuda::Bf16;

void zero(double* x, Index count) { std::fill_n(x, count, 0.0); }

Accumulate accumulate_if(bool yes) { return yes ? Accumulate::yes : Accumulate::no; }

template <class T>
void add_embedding(CudaCases& cases, Index batch, Index time, Index channels, Index vocabulary) {
  const Index n = batch * time * channels;
  const Tensor tokens{"tokens", Role::indices, batch * time, 0.0, static_cast<double>(vocabulary)};
  const auto workspace = static_cast<Index>(cuda::embedding_weight_gradient_workspace_bytes(batch, time, channels) / 4);
  // As if no token occurred twice.
  const auto activations = static_cast<double>(n) * sizeof(T);
  const auto touched = static_cast<double>(n) * sizeof(float);
  const auto positions = static_cast<double>(time * channels);
  for (const bool learned : {true, false}) {
    const std::string shape = fmt::format("{} B={} T={} C={} V={}{}", type_name<T>(), batch, time, channels, vocabulary,
                                          learned ? " positions" : "");
    cases.push_back({.op = "embedding",
                     .name = "embedding_forward " + shape,
                     .tensors = {tensor_of<T>("y", Role::output, n), tokens,
                                 tensor_of<T>("token_table", Role::input, vocabulary * channels),
                                 tensor_of<T>("position_table", Role::input, time * channels)},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::embedding_forward<T>(d.at<T>(0), d.indices(1), d.at<T>(2),
                                                      learned ? d.at<T>(3) : nullptr, batch, time, channels, s);
                         },
                     .reference =
                         [=](D d) {
                           reference::embedding_forward(d[0], d.indices(1), d[2], learned ? d[3] : nullptr, batch, time,
                                                        channels);
                         },
                     .bytes = 2.0 * activations + (learned ? positions * sizeof(T) : 0.0)});
    cases.push_back({.op = "embedding",
                     .name = "embedding_weight_gradient " + shape,
                     .tensors = {{"d_token_table", Role::in_out, vocabulary * channels},
                                 {"d_position_table", Role::in_out, time * channels},
                                 tokens,
                                 tensor_of<T>("dy", Role::input, n),
                                 {"workspace", Role::scratch, workspace}},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::embedding_weight_gradient<T>(d.at<float>(0), learned ? d.at<float>(1) : nullptr,
                                                              d.indices(2), d.at<T>(3), batch, time, channels,
                                                              d.at<void>(4), s);
                         },
                     .reference =
                         [=](D d) {
                           reference::embedding_weight_gradient(d[0], learned ? d[1] : nullptr, d.indices(2), d[3],
                                                                batch, time, channels);
                         },
                     .bytes = activations + 2.0 * touched + (learned ? 2.0 * positions * sizeof(float) : 0.0)});
  }
}

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

template <class T>
void add_cross_entropy(CudaCases& cases, Index rows, Index vocabulary, Index stride, double range) {
  const std::string shape =
      fmt::format("{} N={} V={} stride={} |x|<{}", type_name<T>(), rows, vocabulary, stride, range);
  const Tensor losses{"losses", Role::output, rows};
  const Tensor targets{"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)};
  const double factor = 0.125;
  // Row by row, since rows are padded.
  const auto row_losses = [=](D d, const std::int32_t* at) {
    for (Index n = 0; n < rows; ++n) d[0][n] = reference::cross_entropy_loss(d[1] + n * stride, at + n, 1, vocabulary);
  };
  cases.push_back({.op = "cross_entropy",
                   .name = "cross_entropy_loss " + shape,
                   .tensors = {losses, tensor_of<T>("logits", Role::input, rows * stride, -range, range), targets},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::cross_entropy_loss<T>(d.at<float>(0), d.at<T>(1), d.indices(2), rows, vocabulary, stride,
                                                     s);
                       },
                   .reference = [=](D d) { row_losses(d, d.indices(2)); }});
  cases.push_back({.op = "cross_entropy",
                   .name = "cross_entropy_loss_and_gradient " + shape,
                   .tensors = {losses, tensor_of<T>("logits", Role::in_out, rows * stride, -range, range), targets},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::cross_entropy_loss_and_gradient<T>(d.at<float>(0), d.at<T>(1), d.indices(2), rows,
                                                                  vocabulary, stride, static_cast<float>(factor), s);
                       },
                   .reference =
                       [=](D d) {
                         for (Index n = 0; n < rows; ++n) {
                           double* const row = d[1] + n * stride;
                           d[0][n] =
                               reference::cross_entropy_loss_and_gradient(row, d.indices(2) + n, 1, vocabulary, factor);
                           zero(row + vocabulary, stride - vocabulary);
                         }
                       }});
}

void add_mean_loss(CudaCases& cases, Index rows) {
  cases.push_back(
      {.op = "cross_entropy",
       .name = fmt::format("mean_loss N={}", rows),
       .tensors = {{.name = "mean", .role = Role::output, .count = 1, .storage = Storage::fp64},
                   {"losses", Role::input, rows, 0.0, 11.0}},
       .candidate = [=](Dev d, cudaStream_t s) { cuda::mean_loss(d.at<double>(0), d.at<float>(1), rows, s); },
       .reference =
           [=](D d) {
             *d[0] = 0.0;
             for (Index n = 0; n < rows; ++n) *d[0] += d[1][n] / static_cast<double>(rows);
           }});
}

template <class T>
void add_mean_squared_error(CudaCases& cases, Index rows, Index outputs) {
  const std::string shape = fmt::format("{} N={} outputs={}", type_name<T>(), rows, outputs);
  const Index n = rows * outputs;
  const double factor = 0.125;
  for (const bool gradient : {false, true}) {
    cases.push_back(
        {.op = "mean_squared_error",
         .name = (gradient ? "mean_squared_error_loss_and_gradient " : "mean_squared_error_loss ") + shape,
         .tensors = {{"losses", Role::output, rows},
                     tensor_of<T>("predictions", gradient ? Role::in_out : Role::input, n),
                     {"targets", Role::input, n}},
         .candidate =
             [=](Dev d, cudaStream_t s) {
               if (gradient) {
                 cuda::mean_squared_error_loss_and_gradient<T>(d.at<float>(0), d.at<T>(1), d.at<float>(2), rows,
                                                               outputs, static_cast<float>(factor), s);
               } else {
                 cuda::mean_squared_error_loss<T>(d.at<float>(0), d.at<T>(1), d.at<float>(2), rows, outputs, s);
               }
             },
         .reference =
             [=](D d) {
               for (Index r = 0; r < rows; ++r) {
                 double* const row = d[1] + r * outputs;
                 d[0][r] = reference::mean_squared_error_loss(row, d[2] + r * outputs, 1, outputs);
                 if (gradient) {
                   reference::mean_squared_error_loss_and_gradient(row, d[2] + r * outputs, 1, outputs, factor);
                 }
               }
             }});
  }
}

// A list of descriptors in device memory, as the runtime would upload it once.
template <class Value>
cuda::Buffer uploaded(const std::vector<Value>& values, cudaStream_t stream) {
  cuda::Buffer buffer(values.size() * sizeof(Value));
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(buffer.data(), values.data(), buffer.bytes(), cudaMemcpyHostToDevice, stream));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  return buffer;
}

// One span, cut into tensors at these places; every other tensor has no weight decay. 16-byte alignment of the pieces
// makes the cuts multiples of 8.
std::vector<Index> cuts(Index count) {
  std::vector<Index> places{0};
  for (const Index place : {Index{8}, count / 3 / 8 * 8, count / 2 / 8 * 8, count / 2 / 8 * 8}) {
    if (place >= places.back() && place < count) places.push_back(place);
  }
  places.push_back(count);
  return places;
}

constexpr float decay = 0.1F;
float decay_of(std::size_t piece) { return piece % 2 == 0 ? decay : 0.0F; }

void add_adamw(CudaCases& cases, Index count, Index step, bool in_pieces) {
  const AdamW options{.learning_rate = 1e-2F};
  const double scale = 0.5;
  const std::vector<Index> places = in_pieces ? cuts(count) : std::vector<Index>{0, count};
  // Lives as long as the case: the measured call is the launch alone.
  struct Lists {
    std::byte* at = nullptr;  // the tensors of the call for which it was made
    cuda::Buffer tensors, step, scale;
    Index pieces = 0, blocks = 0;
  };
  const auto lists = std::make_shared<Lists>();
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("adamw_step n={} step={}{}", count, step, in_pieces ? " in pieces" : ""),
                   .tensors = {{"master", Role::in_out, count},
                               {"m", Role::in_out, count},
                               {"v", Role::in_out, count, 0.0, 1.0},
                               {"gradient", Role::input, count},
                               tensor_of<Bf16>("weight", Role::output, count)},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         if (lists->at != d.at<std::byte>(0)) {
                           std::vector<cuda::AdamWTensor> tensors;
                           for (std::size_t i = 0; i + 1 < places.size(); ++i) {
                             const Index at = places[i];
                             tensors.push_back({d.at<float>(0) + at, d.at<float>(1) + at, d.at<float>(2) + at,
                                                d.at<float>(3) + at, d.at<Bf16>(4) + at, places[i + 1] - at,
                                                decay_of(i)});
                           }
                           lists->blocks = cuda::assign_blocks(tensors);
                           lists->pieces = static_cast<Index>(tensors.size());
                           lists->tensors = uploaded(tensors, s);
                           lists->step = uploaded(std::vector{cuda::adamw_step_values(options, step)}, s);
                           lists->scale = uploaded(std::vector{static_cast<float>(scale)}, s);
                           lists->at = d.at<std::byte>(0);
                         }
                         cuda::adamw_step(lists->tensors.as<cuda::AdamWTensor>(), lists->pieces, lists->blocks,
                                          lists->step.as<cuda::AdamWStep>(), lists->scale.as<float>(), options, s);
                       },
                   .reference =
                       [=](D d) {
                         for (std::size_t i = 0; i + 1 < places.size(); ++i) {
                           AdamW piece = options;
                           piece.weight_decay = decay_of(i);
                           const Index at = places[i];
                           reference::adamw_step(d[0] + at, d[1] + at, d[2] + at, d[3] + at, places[i + 1] - at, piece,
                                                 step, scale);
                         }
                         for (Index i = 0; i < count; ++i) d[4][i] = d[0][i];
                       }});
}

void add_sgd(CudaCases& cases, Index count, bool momentum) {
  const Sgd options{.learning_rate = 1e-2F, .momentum = momentum ? 0.9F : 0.0F, .weight_decay = decay};
  cases.push_back(
      {.op = "optimizer",
       .name = fmt::format("sgd_step n={}{}", count, momentum ? " momentum" : ""),
       .tensors = {{"master", Role::in_out, count},
                   {"velocity", momentum ? Role::in_out : Role::input, count},
                   {"gradient", Role::input, count},
                   tensor_of<Bf16>("weight", Role::output, count)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             std::vector<cuda::SgdTensor> tensors{{d.at<float>(0), momentum ? d.at<float>(1) : nullptr, d.at<float>(2),
                                                   d.at<Bf16>(3), count, options.weight_decay}};
             const Index blocks = cuda::assign_blocks(tensors);
             const cuda::Buffer list = uploaded(tensors, s);
             const cuda::Buffer rate = uploaded(std::vector{options.learning_rate}, s);
             cuda::sgd_step(list.as<cuda::SgdTensor>(), 1, blocks, rate.as<float>(), nullptr, options.momentum, s);
             STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(s));
           },
       .reference =
           [=](D d) {
             std::vector<double> none(static_cast<std::size_t>(count));
             reference::sgd_step(d[0], momentum ? d[1] : none.data(), d[2], count, options, 1.0);
             for (Index i = 0; i < count; ++i) d[3][i] = d[0][i];
           }});
}

void add_squared_norm(CudaCases& cases, Index count) {
  const Tensor norm{.name = "norm", .role = Role::output, .count = 1, .storage = Storage::fp64};
  const Tensor workspace{.name = "workspace",
                         .role = Role::scratch,
                         .count = cuda::squared_norm_workspace_doubles,
                         .storage = Storage::fp64};
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("squared_norm n={}", count),
                   .tensors = {norm, {"x", Role::input, count}, workspace},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::squared_norm(d.at<double>(0), d.at<float>(1), count, d.at<double>(2), Accumulate::no, s);
                       },
                   .reference =
                       [=](D d) {
                         *d[0] = 0.0;
                         for (Index i = 0; i < count; ++i) *d[0] += d[1][i] * d[1][i];
                       }});
}

void add_clip_scale(CudaCases& cases, double squared_norm) {
  cases.push_back(
      {.op = "optimizer",
       .name = fmt::format("clip_scale squared_norm={}", squared_norm),
       .tensors = {{"scale", Role::output, 1},
                   {.name = "norm",
                    .role = Role::input,
                    .count = 1,
                    .low = squared_norm,
                    .high = squared_norm,
                    .storage = Storage::fp64}},
       .candidate = [=](Dev d, cudaStream_t s) { cuda::clip_scale(d.at<float>(0), d.at<double>(1), 1.0F, s); },
       .reference = [=](D d) { *d[0] = std::min(1.0, 1.0 / std::sqrt(*d[1])); }});
}

// One operation on each element.
void add_elementwise_case(CudaCases& cases, std::string name, std::vector<Tensor> tensors,
                          std::function<void(Dev, cudaStream_t)> candidate, std::function<double(D, Index)> each) {
  const Index count = tensors.front().count;
  cases.push_back({.op = "elementwise",
                   .name = fmt::format("{} n={}", name, count),
                   .tensors = std::move(tensors),
                   .candidate = std::move(candidate),
                   .reference = [=](D d) {
                     for (Index i = 0; i < count; ++i) d[0][i] = each(d, i);
                   }});
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

// Products of Bf16 are exact in float, and tensor cores add them 16 at a time, each sum truncated. TF32 inputs have 10
// bits of fraction: each product is off by up to twice 2^-11, at random, and the sum by as much of its size as six
// standard deviations of that allow. Some of the library's algorithms round the product to Bf16 before they add C.
double product_tolerance(cuda::MatrixType inputs, Index depth, Storage output, bool accumulate) {
  double tolerance = 1e-5 + static_cast<double>(depth) / 16.0 * 0x1p-23;
  if (inputs == cuda::MatrixType::tf32) tolerance += 6.0 * std::sqrt(2.0 / 3.0) * 0x1p-11;
  if (accumulate && output == Storage::bf16) tolerance += unit_roundoff(Storage::bf16);
  return tolerance;
}

struct LinearOptions {
  bool bias = true;
  cuda::MatrixType fp32_inputs = cuda::MatrixType::fp32;
  bool tuned = false;
};

template <class T>
void add_linear(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs,
                LinearOptions options) {
  const bool biased = options.bias;
  const cuda::MatrixType fp32 = options.fp32_inputs;
  const cuda::MatrixType type = cuda::matrix_type<T>(fp32);
  const std::string shape = fmt::format("{} N={} {}->{}{}", type == cuda::MatrixType::tf32 ? "tf32" : type_name<T>(),
                                        rows, inputs, outputs, options.tuned ? "" : " untuned");
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(inputs) * static_cast<double>(outputs);
  const Tensor x = tensor_of<T>("x", Role::input, rows * inputs);
  const Tensor w = tensor_of<T>("w", Role::input, outputs * inputs);
  const Tensor bias = tensor_of<T>("bias", Role::input, outputs);
  const Tensor dy = tensor_of<T>("dy", Role::input, rows * outputs);
  CudaLibraries* const l = &libraries;
  const auto context = [=](const cuda::GemmShape& product, cudaStream_t s) {
    cuda::GemmContext result = l->context(s);
    result.fp32_inputs = fp32;
    if (options.tuned) {
      l->tune(product);  // the first call only
    } else {
      result.gemm = &l->untuned_gemm;
    }
    return result;
  };
  const auto add = [&](const std::string& name, Index depth, std::vector<Tensor> tensors, auto candidate,
                       auto reference) {
    const Tensor& output = tensors.front();
    const double tolerance = product_tolerance(type, depth, output.storage, output.role == Role::in_out);
    cases.push_back({.op = "linear",
                     .name = name + " " + shape,
                     .tensors = std::move(tensors),
                     .candidate = candidate,
                     .reference = reference,
                     .flops = flops,
                     .tolerance = tolerance});
  };
  const Index y_count = rows * outputs;
  const Index x_count = rows * inputs;
  const Index w_count = outputs * inputs;
  for (const bool accumulate : {false, true}) {
    const Accumulate how = accumulate_if(accumulate);
    const Role role = accumulate ? Role::in_out : Role::output;
    const std::string suffix = std::string(accumulate ? " accumulate" : "") + (biased ? " bias" : "");
    const auto forward = cuda::linear_forward_shape<T>(rows, inputs, outputs, biased, how, fp32);
    add(
        "linear_forward" + suffix, inputs, {tensor_of<T>("y", role, y_count), x, w, bias},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_forward<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), biased ? d.at<T>(3) : nullptr, rows, inputs,
                                  outputs, how, context(forward, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], y_count);
          reference::linear_forward_add(d[0], d[1], d[2], biased ? d[3] : nullptr, rows, inputs, outputs);
        });
    if (biased) continue;
    const auto input_gradient = cuda::linear_input_gradient_shape<T>(rows, inputs, outputs, how, fp32);
    const auto weight_gradient = cuda::linear_weight_gradient_shape<T>(rows, inputs, outputs, how, fp32);
    add(
        "linear_input_gradient" + suffix, outputs, {tensor_of<T>("dx", role, x_count), dy, w},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_input_gradient<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), rows, inputs, outputs, how,
                                         context(input_gradient, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], x_count);
          reference::linear_input_gradient_add(d[0], d[1], d[2], rows, inputs, outputs);
        });
    add(
        "linear_weight_gradient" + suffix, rows, {{"dw", role, w_count}, dy, x},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_weight_gradient<T>(d.at<float>(0), d.at<T>(1), d.at<T>(2), rows, inputs, outputs, how,
                                          context(weight_gradient, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], w_count);
          reference::linear_weight_gradient(d[0], nullptr, d[1], d[2], rows, inputs, outputs);
        });
  }
}

// GELU within the products, against the separate operations.
void add_linear_gelu(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs) {
  CudaLibraries* const l = &libraries;
  const Index z_count = rows * outputs;
  const std::string shape = fmt::format("bf16 N={} {}->{}", rows, inputs, outputs);
  const double flops = 2.0 * static_cast<double>(z_count) * static_cast<double>(inputs);
  const auto forward = cuda::linear_forward_gelu_shape(rows, inputs, outputs, true);
  cases.push_back(
      {.op = "linear",
       .name = "linear_forward_gelu " + shape,
       .tensors = {tensor_of<Bf16>("y", Role::output, z_count), tensor_of<Bf16>("z", Role::output, z_count),
                   tensor_of<Bf16>("x", Role::input, rows * inputs),
                   tensor_of<Bf16>("w", Role::input, outputs * inputs), tensor_of<Bf16>("bias", Role::input, outputs)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             l->tune(forward);
             cuda::linear_forward_gelu(d.at<Bf16>(0), d.at<Bf16>(1), d.at<Bf16>(2), d.at<Bf16>(3), d.at<Bf16>(4), rows,
                                       inputs, outputs, l->context(s));
           },
       .reference =
           [=](D d) {
             zero(d[1], z_count);
             reference::linear_forward_add(d[1], d[2], d[3], d[4], rows, inputs, outputs);
             reference::gelu_forward(d[0], d[1], z_count);
           },
       .flops = flops,
       .tolerance = product_tolerance(cuda::MatrixType::bf16, inputs, Storage::bf16, false)});
  const auto gradient = cuda::linear_input_gradient_gelu_shape(rows, outputs, inputs);
  cases.push_back(
      {.op = "linear",
       .name = "linear_input_gradient_gelu " + shape,
       .tensors = {tensor_of<Bf16>("dz", Role::output, z_count), tensor_of<Bf16>("dy", Role::input, rows * inputs),
                   tensor_of<Bf16>("w", Role::input, outputs * inputs), tensor_of<Bf16>("z", Role::input, z_count)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             l->tune(gradient);
             cuda::linear_input_gradient_gelu(d.at<Bf16>(0), d.at<Bf16>(1), d.at<Bf16>(2), d.at<Bf16>(3), rows, outputs,
                                              inputs, l->context(s));
           },
       .reference =
           [=](D d) {
             std::vector<double> dx(static_cast<std::size_t>(z_count));
             reference::linear_input_gradient_add(dx.data(), d[1], d[2], rows, outputs, inputs);
             reference::gelu_input_gradient(d[0], dx.data(), d[3], z_count);
           },
       .flops = flops,
       // The library rounds the product before it multiplies.
       .tolerance = product_tolerance(cuda::MatrixType::bf16, inputs, Storage::bf16, true)});
}

// Another object takes the choice from the file. Were it to time again, it would fail for want of memory to do so in.
void add_gemm_cache(CudaCases& cases, CudaLibraries& libraries) {
  constexpr Index n = 64;
  CudaLibraries* const l = &libraries;
  cases.push_back({.op = "linear",
                   .name = "linear_forward with the algorithm of an earlier run",
                   .tensors = {tensor_of<Bf16>("y", Role::output, n * n), tensor_of<Bf16>("x", Role::input, n * n),
                               tensor_of<Bf16>("w", Role::input, n * n)},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         const auto shape = cuda::linear_forward_shape<Bf16>(n, n, n, false, Accumulate::no);
                         l->tune(shape);
                         cuda::Gemm later(l->gemm_cache);
                         later.tune(shape, {}, nullptr, s);
                         later.run(shape, d.at<void>(0), d.at<void>(1), d.at<void>(2), nullptr,
                                   l->gemm_workspace.data(), s);
                         STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(s));
                       },
                   .reference =
                       [=](D d) {
                         zero(d[0], n * n);
                         reference::linear_forward_add(d[0], d[1], d[2], nullptr, n, n, n);
                       }});
}

template <class T>
void add_small_cases(CudaCases& cases, CudaLibraries& libraries) {
  add_embedding<T>(cases, 1, 1, 1, 1);
  add_embedding<T>(cases, 3, 5, 37, 7);
  add_embedding<T>(cases, 2, 100, 64, 3);  // runs over several chunks
  add_embedding<T>(cases, 1, 64, 1600, 2000);
  add_shard_embedding<T>(cases, 3, 5, 37, 7, 2);
  add_shard_embedding<T>(cases, 2, 100, 64, 3, 3);
  for (const Index channels : {1, 7, 64, 259, 768, 1600, 4096, 6144}) {
    add_layer_norm<T>(cases, 5, channels);
    add_rms_norm<T>(cases, 5, channels);
  }
  add_layer_norm<T>(cases, 131, 72);  // several chunks of rows, the last one short
  add_rms_norm<T>(cases, 131, 72);
  add_bias<T>(cases, 1, 1);
  add_bias<T>(cases, 131, 37);
  add_bias<T>(cases, 131, 1600);
  for (const double range : {1.0, 10.0, 1000.0}) {
    add_gelu<T>(cases, 17, 59, range);
    add_gelu<T>(cases, 3, 336, range);
    add_swiglu<T>(cases, 3, 331, range);
    add_swiglu<T>(cases, 3, 336, range);
  }
  add_rope<T>(cases, 1, 1, 1, 2, 2);
  add_rope<T>(cases, 2, 9, 3, 6, 18);
  add_rope<T>(cases, 2, 40, 3, 64, 4 * 64 + 3);
  add_rope<T>(cases, 2, 40, 40, 128, 48 * 128);
  for (const double range : {1.0, 100.0}) {
    add_cross_entropy<T>(cases, 1, 1, 1, range);
    add_cross_entropy<T>(cases, 7, 259, 259, range);
    add_cross_entropy<T>(cases, 7, 259, 264, range);
    add_cross_entropy<T>(cases, 3, 50257, 50304, range);
    add_shard_cross_entropy<T>(cases, 7, 259, 2, 131, range);
    add_shard_cross_entropy<T>(cases, 3, 50257, 4, 12672, range);
  }
  add_mean_squared_error<T>(cases, 1, 1);
  add_mean_squared_error<T>(cases, 300, 13);
  for (const bool bias : {false, true}) {
    for (const bool tuned : {false, true}) {
      add_linear<T>(cases, libraries, 1, 1, 1, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 5, 37, 19, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 64, 128, 96, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 72, 1600, 400, {.bias = bias, .tuned = tuned});
    }
  }
  add_attention<T>(cases, packed_attention(1, 1, 1, 1, 1), 1.0);
  add_attention<T>(cases, packed_attention(2, 7, 2, 2, 5), 1.0);
  add_attention<T>(cases, packed_attention(2, 33, 4, 2, 16), 2.0);
  add_attention<T>(cases, packed_attention(1, 130, 3, 3, 64), 1.0);
  add_attention<T>(cases, packed_attention(1, 70, 8, 2, 128), 1.0);
  add_attention<T>(cases, packed_attention(1, 20, 1, 1, 200), 1.0);
}

// What surrounds the matrix products in `rows` tokens of GPT-2 XL.
void add_gpt2_xl(CudaCases& cases, Index batch) {
  constexpr Index time = 1024;
  constexpr Index channels = 1600;
  const Index rows = batch * time;
  add_embedding<Bf16>(cases, batch, time, channels, 50304);
  add_layer_norm<Bf16>(cases, rows, channels);
  add_bias<Bf16>(cases, rows, channels);
  add_bias<Bf16>(cases, rows, 4 * channels);
  add_gelu<Bf16>(cases, rows, 4 * channels, 3.0);
  add_cross_entropy<Bf16>(cases, rows, 50257, 50304, 3.0);
}

}  // namespace

std::vector<CudaCase> cuda_test_cases(CudaLibraries& libraries) {
  CudaCases cases;
  add_small_cases<float>(cases, libraries);
  add_small_cases<Bf16>(cases, libraries);
  for (const bool tuned : {false, true}) {
    add_linear<float>(cases, libraries, 72, 256, 200,
                      {.bias = false, .fp32_inputs = cuda::MatrixType::tf32, .tuned = tuned});
  }
  add_linear_gelu(cases, libraries, 8, 64, 64);
  add_linear_gelu(cases, libraries, 72, 1600, 400);
  add_gemm_cache(cases, libraries);
  add_cudnn_attention(cases, libraries, packed_attention(2, 64, 3, 3, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(1, 200, 2, 2, 64), 2.0);
  add_cudnn_attention(cases, libraries, packed_attention(2, 128, 8, 2, 128), 1.0);
  add_mean_loss(cases, 1);
  add_mean_loss(cases, 4097);
  for (const Index step : {1, 10, 100000}) add_adamw(cases, 20001, step, true);
  add_adamw(cases, 7, 1, false);
  for (const bool momentum : {false, true}) add_sgd(cases, 20001, momentum);
  add_squared_norm(cases, 1);
  add_squared_norm(cases, 1000003);
  add_clip_scale(cases, 0.25);
  add_clip_scale(cases, 16.0);
  add_elementwise(cases, 1);
  add_elementwise(cases, 4099);
  return cases;
}

std::vector<CudaCase> cuda_perf_cases(CudaLibraries& libraries) {
  CudaCases cases;
  add_gpt2_xl(cases, 4);
  add_gpt2_xl(cases, 8);
  for (const Index rows : {4096, 8192}) {
    for (const auto& [inputs, outputs] :
         {std::array<Index, 2>{1600, 4800}, {1600, 1600}, {1600, 6400}, {6400, 1600}, {1600, 50304}}) {
      add_linear<Bf16>(cases, libraries, rows, inputs, outputs, {.bias = false, .tuned = true});
      if (outputs < 50000) add_linear<Bf16>(cases, libraries, rows, inputs, outputs, {.bias = true, .tuned = true});
    }
  }
  for (const Index rows : {4096, 8192}) add_linear_gelu(cases, libraries, rows, 1600, 6400);
  add_linear<Bf16>(cases, libraries, 4096, 1600, 6400, {.bias = false, .tuned = false});
  add_cudnn_attention(cases, libraries, packed_attention(4, 1024, 25, 25, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(8, 1024, 25, 25, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(2, 2048, 32, 8, 128), 1.0);
  add_attention<Bf16>(cases, packed_attention(4, 1024, 25, 25, 64), 1.0);
  // A Llama layer of 4096 channels, 14336 features, 32 heads and 8 key heads of 128.
  add_rms_norm<Bf16>(cases, 8192, 4096);
  add_swiglu<Bf16>(cases, 8192, 14336, 3.0);
  add_rope<Bf16>(cases, 4, 2048, 40, 128, 48 * 128);
  add_adamw(cases, Index{1} << 28, 10, false);
  add_squared_norm(cases, Index{1} << 28);
  add_elementwise(cases, Index{1} << 26);
  return cases;
}

}  // namespace stagecraft::kernels
