#include "kernels/harness/cases.hpp"

#include <cmath>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/embedding.hpp"
#include "kernels/cpu/gelu.hpp"
#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/mean_squared_error.hpp"
#include "kernels/cpu/optimizer.hpp"
#include "kernels/cpu/rope.hpp"
#include "kernels/cpu/swiglu.hpp"
#include "kernels/harness/cpu_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

void add_embedding(Cases& cases, Index batch, Index time, Index channels, Index vocabulary) {
  const Index n = batch * time * channels;
  const Tensor tokens{"tokens", Role::indices, batch * time, 0.0, static_cast<double>(vocabulary)};
  const std::string shape = fmt::format("B={} T={} C={} V={}", batch, time, channels, vocabulary);
  for (const bool learned : {true, false}) {
    const std::string suffix = shape + (learned ? " positions" : "");
    cases.push_back(
        {.op = "embedding",
         .name = "embedding_forward " + suffix,
         .tensors = {{"y", Role::output, n},
                     tokens,
                     {"token_table", Role::input, vocabulary * channels},
                     {"position_table", Role::input, time * channels}},
         .candidate =
             [=](F f) {
               cpu::embedding_forward(f[0], f.indices(1), f[2], learned ? f[3] : nullptr, batch, time, channels);
             },
         .reference =
             [=](D d) {
               reference::embedding_forward(d[0], d.indices(1), d[2], learned ? d[3] : nullptr, batch, time, channels);
             }});
    cases.push_back({.op = "embedding",
                     .name = "embedding_weight_gradient " + suffix,
                     .tensors = {{"d_token_table", Role::in_out, vocabulary * channels},
                                 {"d_position_table", Role::in_out, time * channels},
                                 tokens,
                                 {"dy", Role::input, n}},
                     .candidate =
                         [=](F f) {
                           cpu::embedding_weight_gradient(f[0], learned ? f[1] : nullptr, f.indices(2), f[3], batch,
                                                          time, channels);
                         },
                     .reference =
                         [=](D d) {
                           reference::embedding_weight_gradient(d[0], learned ? d[1] : nullptr, d.indices(2), d[3],
                                                                batch, time, channels);
                         }});
  }
}

void add_linear(Cases& cases, Index rows, Index inputs, Index outputs, bool biased) {
  const std::string shape = fmt::format("N={} {}->{}{}", rows, inputs, outputs, biased ? " bias" : "");
  const double flops = 2.0 * static_cast<double>(rows * inputs * outputs);
  const Tensor x{"x", Role::input, rows * inputs};
  const Tensor w{"w", Role::input, outputs * inputs};
  const Tensor bias{"bias", Role::input, outputs};
  const Tensor dy{"dy", Role::input, rows * outputs};
  const auto add = [&](std::string name, const std::vector<Tensor>& tensors, auto candidate, auto reference) {
    cases.push_back({.op = "linear",
                     .name = std::move(name) + " " + shape,
                     .tensors = tensors,
                     .candidate = candidate,
                     .reference = reference,
                     .flops = flops});
  };
  const Index y_count = rows * outputs;
  const Index x_count = rows * inputs;
  add(
      "linear_forward", {{"y", Role::output, y_count}, x, w, bias},
      [=](F f) { cpu::linear_forward(f[0], f[1], f[2], biased ? f[3] : nullptr, rows, inputs, outputs); },
      [=](D d) {
        zero(d[0], y_count);
        reference::linear_forward_add(d[0], d[1], d[2], biased ? d[3] : nullptr, rows, inputs, outputs);
      });
  add(
      "linear_forward_add", {{"y", Role::in_out, y_count}, x, w, bias},
      [=](F f) { cpu::linear_forward_add(f[0], f[1], f[2], biased ? f[3] : nullptr, rows, inputs, outputs); },
      [=](D d) { reference::linear_forward_add(d[0], d[1], d[2], biased ? d[3] : nullptr, rows, inputs, outputs); });
  add(
      "linear_input_gradient", {{"dx", Role::output, x_count}, dy, w},
      [=](F f) { cpu::linear_input_gradient(f[0], f[1], f[2], rows, inputs, outputs); },
      [=](D d) {
        zero(d[0], x_count);
        reference::linear_input_gradient_add(d[0], d[1], d[2], rows, inputs, outputs);
      });
  add(
      "linear_input_gradient_add", {{"dx", Role::in_out, x_count}, dy, w},
      [=](F f) { cpu::linear_input_gradient_add(f[0], f[1], f[2], rows, inputs, outputs); },
      [=](D d) { reference::linear_input_gradient_add(d[0], d[1], d[2], rows, inputs, outputs); });
  add(
      "linear_weight_gradient", {{"dw", Role::in_out, outputs * inputs}, {"d_bias", Role::in_out, outputs}, dy, x},
      [=](F f) { cpu::linear_weight_gradient(f[0], biased ? f[1] : nullptr, f[2], f[3], rows, inputs, outputs); },
      [=](D d) {
        reference::linear_weight_gradient(d[0], biased ? d[1] : nullptr, d[2], d[3], rows, inputs, outputs);
      });
}

void add_gelu(Cases& cases, Index count, double range) {
  const std::string shape = fmt::format("n={} |x|<{}", count, range);
  const Tensor x{"x", Role::input, count, -range, range};
  cases.push_back({.op = "gelu",
                   .name = "gelu_forward " + shape,
                   .tensors = {{"y", Role::output, count}, x},
                   .candidate = [=](F f) { cpu::gelu_forward(f[0], f[1], count); },
                   .reference = [=](D d) { reference::gelu_forward(d[0], d[1], count); }});
  cases.push_back({.op = "gelu",
                   .name = "gelu_input_gradient " + shape,
                   .tensors = {{"dx", Role::output, count}, {"dy", Role::input, count}, x},
                   .candidate = [=](F f) { cpu::gelu_input_gradient(f[0], f[1], f[2], count); },
                   .reference = [=](D d) { reference::gelu_input_gradient(d[0], d[1], d[2], count); }});
}

void add_swiglu(Cases& cases, Index rows, Index features, double range) {
  const std::string shape = fmt::format("N={} F={} |x|<{}", rows, features, range);
  const Index n = rows * features;
  const Tensor gate_up{"gate_up", Role::input, 2 * n, -range, range};
  cases.push_back({.op = "swiglu",
                   .name = "swiglu_forward " + shape,
                   .tensors = {{"y", Role::output, n}, gate_up},
                   .candidate = [=](F f) { cpu::swiglu_forward(f[0], f[1], rows, features); },
                   .reference = [=](D d) { reference::swiglu_forward(d[0], d[1], rows, features); }});
  cases.push_back({.op = "swiglu",
                   .name = "swiglu_input_gradient " + shape,
                   .tensors = {{"d_gate_up", Role::output, 2 * n}, {"dy", Role::input, n}, gate_up},
                   .candidate = [=](F f) { cpu::swiglu_input_gradient(f[0], f[1], f[2], rows, features); },
                   .reference = [=](D d) { reference::swiglu_input_gradient(d[0], d[1], d[2], rows, features); }});
}

// Only the first `heads` heads of rows of `stride` floats turn.
void add_rope(Cases& cases, Index batch, Index time, Index heads, Index head_size, Index stride) {
  const std::string shape = fmt::format("B={} T={} H={} D={} stride={}", batch, time, heads, head_size, stride);
  constexpr double theta = 10000.0;
  std::vector<float> table(static_cast<std::size_t>(cpu::rope_table_floats(time, head_size)));
  cpu::rope_table(table.data(), time, head_size, theta);
  const std::vector<Tensor> tensors = {{"x", Role::in_out, batch * time * stride}};
  cases.push_back(
      {.op = "rope",
       .name = "rope_forward " + shape,
       .tensors = tensors,
       .candidate = [=](F f) { cpu::rope_forward(f[0], table.data(), batch, time, heads, head_size, stride); },
       .reference = [=](D d) { reference::rope(d[0], theta, 1.0, batch, time, heads, head_size, stride); }});
  cases.push_back(
      {.op = "rope",
       .name = "rope_input_gradient " + shape,
       .tensors = tensors,
       .candidate = [=](F f) { cpu::rope_input_gradient(f[0], table.data(), batch, time, heads, head_size, stride); },
       .reference = [=](D d) { reference::rope(d[0], theta, -1.0, batch, time, heads, head_size, stride); }});
}

// q, k and v are packed into one row: q at 0, k and v at these offsets.
void add_attention(Cases& cases, Index batch, Index time, Index heads, Index kv_heads, Index head_size, double range) {
  const Index k = heads * head_size;
  const Index v = k + kv_heads * head_size;
  const Index stride = v + kv_heads * head_size;
  const AttentionShape s{batch, time, heads, kv_heads, head_size, stride, stride};
  const Index rows = batch * time;
  const std::string shape =
      fmt::format("B={} T={} H={} KV={} D={} |x|<{}", batch, time, heads, kv_heads, head_size, range);
  const Tensor qkv{"qkv", Role::input, rows * stride, -range, range};
  const Tensor scratch{"workspace", Role::scratch, cpu::attention_workspace_floats(s)};
  const Index p_count = cpu::attention_probability_floats(s);
  // Two products forward, four backward, over the pairs below the diagonal.
  const Index pairs = time * (time + 1) / 2;
  const double product = 2.0 * static_cast<double>(batch * heads * head_size * pairs);
  // A score s in single precision is off by up to s * 2^-24, which is the relative error of its probability.
  const double largest_score = range * range * std::sqrt(static_cast<double>(head_size));
  const double tolerance = 1e-5 + 2.0 * largest_score * 0x1p-24;
  for (const bool stored : {true, false}) {
    const char* suffix = stored ? "" : " recompute";
    cases.push_back(
        {.op = "attention",
         .name = fmt::format("attention_forward {}{}", shape, suffix),
         .tensors = {{"o", Role::output, rows * k},
                     {"probabilities", stored ? Role::output : Role::scratch, p_count},
                     qkv,
                     scratch},
         .candidate =
             [=](F f) { cpu::attention_forward(f[0], stored ? f[1] : nullptr, f[2], f[2] + k, f[2] + v, s, f[3]); },
         .reference = [=](D d) { reference::attention_forward(d[0], d[1], d[2], d[2] + k, d[2] + v, s); },
         .flops = 2.0 * product,
         .tolerance = tolerance});
    cases.push_back({.op = "attention",
                     .name = fmt::format("attention_input_gradient {}{}", shape, suffix),
                     .tensors = {{"dqkv", Role::output, rows * stride},
                                 {"d_o", Role::input, rows * k},
                                 {"probabilities", Role::input, p_count},
                                 qkv,
                                 scratch},
                     .candidate =
                         [=](F f) {
                           cpu::attention_input_gradient(f[0], f[0] + k, f[0] + v, f[1], stored ? f[2] : nullptr, f[3],
                                                         f[3] + k, f[3] + v, s, f[4]);
                         },
                     .reference =
                         [=](D d) {
                           reference::attention_input_gradient(d[0], d[0] + k, d[0] + v, d[1], d[2], d[3], d[3] + k,
                                                               d[3] + v, s);
                         },
                     .prepare =
                         [=](D d) {
                           std::vector<double> o(static_cast<std::size_t>(rows * k));
                           reference::attention_forward(o.data(), d[2], d[3], d[3] + k, d[3] + v, s);
                         },
                     .flops = (stored ? 4.0 : 5.0) * product,
                     .tolerance = tolerance});
  }
}

void add_cross_entropy(Cases& cases, Index rows, Index vocabulary, double range) {
  const std::string shape = fmt::format("N={} V={} |x|<{}", rows, vocabulary, range);
  const Tensor targets{"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)};
  const Index n = rows * vocabulary;
  constexpr float factor = 0.125F;
  cases.push_back(
      {.op = "cross_entropy",
       .name = "cross_entropy_loss " + shape,
       .tensors = {{"loss", Role::output, 1}, {"logits", Role::input, n, -range, range}, targets},
       .candidate =
           [=](F f) { *f[0] = static_cast<float>(cpu::cross_entropy_loss(f[1], f.indices(2), rows, vocabulary)); },
       .reference = [=](D d) { *d[0] = reference::cross_entropy_loss(d[1], d.indices(2), rows, vocabulary); }});
  cases.push_back({.op = "cross_entropy",
                   .name = "cross_entropy_loss_and_gradient " + shape,
                   .tensors = {{"loss", Role::output, 1}, {"logits", Role::in_out, n, -range, range}, targets},
                   .candidate =
                       [=](F f) {
                         *f[0] = static_cast<float>(
                             cpu::cross_entropy_loss_and_gradient(f[1], f.indices(2), rows, vocabulary, factor));
                       },
                   .reference =
                       [=](D d) {
                         *d[0] =
                             reference::cross_entropy_loss_and_gradient(d[1], d.indices(2), rows, vocabulary, factor);
                       }});
}

void add_mean_squared_error(Cases& cases, Index rows, Index outputs) {
  const std::string shape = fmt::format("N={} outputs={}", rows, outputs);
  const Index n = rows * outputs;
  constexpr float factor = 0.125F;
  cases.push_back(
      {.op = "mean_squared_error",
       .name = "mean_squared_error_loss " + shape,
       .tensors = {{"loss", Role::output, 1}, {"predictions", Role::input, n}, {"targets", Role::input, n}},
       .candidate = [=](F f) { *f[0] = static_cast<float>(cpu::mean_squared_error_loss(f[1], f[2], rows, outputs)); },
       .reference = [=](D d) { *d[0] = reference::mean_squared_error_loss(d[1], d[2], rows, outputs); }});
  cases.push_back(
      {.op = "mean_squared_error",
       .name = "mean_squared_error_loss_and_gradient " + shape,
       .tensors = {{"loss", Role::output, 1}, {"predictions", Role::in_out, n}, {"targets", Role::input, n}},
       .candidate =
           [=](F f) {
             *f[0] = static_cast<float>(cpu::mean_squared_error_loss_and_gradient(f[1], f[2], rows, outputs, factor));
           },
       .reference =
           [=](D d) { *d[0] = reference::mean_squared_error_loss_and_gradient(d[1], d[2], rows, outputs, factor); }});
}

void add_optimizer(Cases& cases, Index count) {
  const Tensor w{"w", Role::in_out, count};
  const Tensor dw{"dw", Role::input, count};
  const AdamW adamw{.learning_rate = 1e-2F, .weight_decay = 0.1F};
  const Sgd sgd{.learning_rate = 1e-2F, .momentum = 0.9F, .weight_decay = 0.1F};
  const Sgd plain{.learning_rate = 1e-2F, .weight_decay = 0.1F};
  constexpr float factor = 0.5F;
  for (const Index step : {1, 10, 100000}) {
    cases.push_back(
        {.op = "optimizer",
         .name = fmt::format("adamw_step n={} step={}", count, step),
         .tensors = {w, {"m", Role::in_out, count}, {"v", Role::in_out, count, 0.0, 1.0}, dw},
         .candidate = [=](F f) { cpu::adamw_step(f[0], f[1], f[2], f[3], count, adamw, step, factor); },
         .reference = [=](D d) { reference::adamw_step(d[0], d[1], d[2], d[3], count, adamw, step, factor); }});
  }
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("sgd_step n={} momentum", count),
                   .tensors = {w, {"velocity", Role::in_out, count}, dw},
                   .candidate = [=](F f) { cpu::sgd_step(f[0], f[1], f[2], count, sgd, factor); },
                   .reference = [=](D d) { reference::sgd_step(d[0], d[1], d[2], count, sgd, factor); }});
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("sgd_step n={}", count),
                   .tensors = {w, dw},
                   .candidate = [=](F f) { cpu::sgd_step(f[0], nullptr, f[1], count, plain, factor); },
                   .reference =
                       [=](D d) {
                         std::vector<double> velocity(static_cast<std::size_t>(count));
                         reference::sgd_step(d[0], velocity.data(), d[1], count, plain, factor);
                       }});
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("squared_norm n={}", count),
                   .tensors = {{"norm", Role::output, 1}, dw},
                   .candidate = [=](F f) { *f[0] = static_cast<float>(cpu::squared_norm(f[1], count)); },
                   .reference =
                       [=](D d) {
                         *d[0] = 0.0;
                         for (Index i = 0; i < count; ++i) *d[0] += d[1][i] * d[1][i];
                       }});
}

void add_elementwise(Cases& cases, Index count) {
  const std::string shape = fmt::format(" n={}", count);
  const Tensor y{"y", Role::output, count};
  const Tensor changed{"y", Role::in_out, count};
  const Tensor a{"a", Role::input, count};
  const Tensor b{"b", Role::input, count};
  const auto add = [&](std::string name, const std::vector<Tensor>& tensors, auto candidate, auto each) {
    cases.push_back({.op = "elementwise",
                     .name = std::move(name) + shape,
                     .tensors = tensors,
                     .candidate = candidate,
                     .reference = [=](D d) {
                       for (Index i = 0; i < count; ++i) d[0][i] = each(d, i);
                     }});
  };
  add(
      "fill", {y}, [=](F f) { cpu::fill(f[0], 0.5F, count); }, [](D, Index) { return 0.5; });
  add(
      "copy", {y, a}, [=](F f) { cpu::copy(f[0], f[1], count); }, [](D d, Index i) { return d[1][i]; });
  add(
      "add", {y, a, b}, [=](F f) { cpu::add(f[0], f[1], f[2], count); },
      [](D d, Index i) { return d[1][i] + d[2][i]; });
  add(
      "accumulate", {changed, a}, [=](F f) { cpu::accumulate(f[0], f[1], count); },
      [](D d, Index i) { return d[0][i] + d[1][i]; });
  add(
      "scale", {changed}, [=](F f) { cpu::scale(f[0], -1.5F, count); }, [](D d, Index i) { return -1.5 * d[0][i]; });
}

}  // namespace

std::vector<Case> test_cases() {
  Cases cases;
  add_embedding(cases, 1, 1, 1, 1);
  add_embedding(cases, 3, 5, 37, 7);
  for (const Index channels : {1, 7, 64, 259}) {
    add_layer_norm(cases, 5, channels);
    add_rms_norm(cases, 5, channels);
  }
  for (const bool biased : {false, true}) {
    add_linear(cases, 1, 1, 1, biased);
    add_linear(cases, 5, 37, 19, biased);
    add_linear(cases, 64, 128, 96, biased);
  }
  for (const double range : {1.0, 10.0, 1000.0}) {
    add_gelu(cases, 1003, range);
    add_swiglu(cases, 3, 331, range);
  }
  add_rope(cases, 1, 1, 1, 2, 2);
  add_rope(cases, 2, 9, 3, 6, 18);
  add_rope(cases, 2, 40, 3, 64, 4 * 64 + 3);
  add_attention(cases, 1, 1, 1, 1, 1, 1.0);
  add_attention(cases, 2, 7, 2, 2, 5, 1.0);
  add_attention(cases, 2, 33, 4, 2, 16, 2.0);
  add_attention(cases, 1, 300, 3, 1, 32, 1.0);  // more than one tile, the last one short
  add_attention(cases, 1, 20, 1, 1, 4, 10.0);   // nearly one-hot rows
  add_cross_entropy(cases, 1, 1, 1.0);
  add_cross_entropy(cases, 7, 259, 1.0);
  add_cross_entropy(cases, 7, 259, 100.0);
  add_mean_squared_error(cases, 1, 1);
  add_mean_squared_error(cases, 7, 13);
  add_optimizer(cases, 1001);
  add_elementwise(cases, 1001);
  return cases;
}

std::vector<Case> perf_cases() {
  Cases cases;
  constexpr Index batch = 4;
  constexpr Index time = 256;
  constexpr Index rows = batch * time;
  constexpr Index channels = 256;
  add_embedding(cases, batch, time, channels, 256);
  add_layer_norm(cases, rows, channels);
  add_rms_norm(cases, rows, channels);
  for (const Index outputs : {channels, 3 * channels, 4 * channels}) add_linear(cases, rows, channels, outputs, true);
  add_linear(cases, rows, 4 * channels, channels, true);
  add_gelu(cases, rows * 4 * channels, 3.0);
  add_swiglu(cases, rows, 3 * channels, 3.0);
  add_rope(cases, batch, time, 8, 64, Index{12} * 64);
  add_attention(cases, batch, time, 4, 4, 64, 1.0);
  add_attention(cases, 1, 1024, 4, 2, 64, 1.0);
  add_cross_entropy(cases, rows, 256, 3.0);
  add_cross_entropy(cases, 128, 50257, 3.0);
  add_mean_squared_error(cases, rows, 16);
  add_optimizer(cases, 1 << 22);
  add_elementwise(cases, rows * channels);
  return cases;
}

}  // namespace stagecraft::kernels
