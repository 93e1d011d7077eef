#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/embedding.hpp"
#include "kernels/cpu/gelu.hpp"
#include "kernels/cpu/layer_norm.hpp"
#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/mean_squared_error.hpp"
#include "kernels/cpu/rms_norm.hpp"
#include "kernels/cpu/rope.hpp"
#include "kernels/cpu/swiglu.hpp"
#include "kernels/harness/cpu_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

std::vector<float> floats(Index count) { return std::vector<float>(static_cast<std::size_t>(count)); }
std::vector<double> doubles(Index count) { return std::vector<double>(static_cast<std::size_t>(count)); }

GradientCase embedding(Index batch, Index time, Index channels, Index vocabulary) {
  return {
      .op = "embedding",
      .name = "embedding",
      .inputs = {{"token_table", Role::input, vocabulary * channels},
                 {"position_table", Role::input, time * channels},
                 {"tokens", Role::indices, batch * time, 0.0, static_cast<double>(vocabulary)}},
      .outputs = batch * time * channels,
      .forward = [=](D x,
                     double* y) { reference::embedding_forward(y, x.indices(2), x[0], x[1], batch, time, channels); },
      .gradient = [=](F x, const float* dy,
                      F dx) { cpu::embedding_weight_gradient(dx[0], dx[1], x.indices(2), dy, batch, time, channels); }};
}

GradientCase layer_norm(Index rows, Index channels) {
  return {.op = "layer_norm",
          .name = "layer_norm",
          .inputs = {{"x", Role::input, rows * channels},
                     {"gamma", Role::input, channels},
                     {"beta", Role::input, channels}},
          .outputs = rows * channels,
          .forward =
              [=](D x, double* y) {
                auto mean = doubles(rows);
                auto rstd = doubles(rows);
                reference::layer_norm_forward(y, mean.data(), rstd.data(), x[0], x[1], x[2], rows, channels, epsilon);
              },
          .gradient =
              [=](F x, const float* dy, F dx) {
                auto y = floats(rows * channels);
                auto mean = floats(rows);
                auto rstd = floats(rows);
                cpu::layer_norm_forward(y.data(), mean.data(), rstd.data(), x[0], x[1], x[2], rows, channels, epsilon);
                cpu::layer_norm_input_gradient(dx[0], dy, x[0], x[1], mean.data(), rstd.data(), rows, channels);
                cpu::layer_norm_weight_gradient(dx[1], dx[2], dy, x[0], mean.data(), rstd.data(), rows, channels);
              }};
}

GradientCase rms_norm(Index rows, Index channels) {
  return {.op = "rms_norm",
          .name = "rms_norm",
          .inputs = {{"x", Role::input, rows * channels}, {"gamma", Role::input, channels}},
          .outputs = rows * channels,
          .forward =
              [=](D x, double* y) {
                auto rstd = doubles(rows);
                reference::rms_norm_forward(y, rstd.data(), x[0], x[1], rows, channels, epsilon);
              },
          .gradient =
              [=](F x, const float* dy, F dx) {
                auto y = floats(rows * channels);
                auto rstd = floats(rows);
                cpu::rms_norm_forward(y.data(), rstd.data(), x[0], x[1], rows, channels, epsilon);
                cpu::rms_norm_input_gradient(dx[0], dy, x[0], x[1], rstd.data(), rows, channels);
                cpu::rms_norm_weight_gradient(dx[1], dy, x[0], rstd.data(), rows, channels);
              }};
}

GradientCase linear(Index rows, Index inputs, Index outputs) {
  return {.op = "linear",
          .name = "linear",
          .inputs = {{"x", Role::input, rows * inputs},
                     {"w", Role::input, outputs * inputs},
                     {"bias", Role::input, outputs}},
          .outputs = rows * outputs,
          .forward =
              [=](D x, double* y) {
                for (Index i = 0; i < rows * outputs; ++i) y[i] = 0.0;
                reference::linear_forward_add(y, x[0], x[1], x[2], rows, inputs, outputs);
              },
          .gradient =
              [=](F x, const float* dy, F dx) {
                cpu::linear_input_gradient(dx[0], dy, x[1], rows, inputs, outputs);
                cpu::linear_weight_gradient(dx[1], dx[2], dy, x[0], rows, inputs, outputs);
              }};
}

GradientCase gelu(Index count) {
  return {.op = "gelu",
          .name = "gelu",
          .inputs = {{"x", Role::input, count, -4.0, 4.0}},
          .outputs = count,
          .forward = [=](D x, double* y) { reference::gelu_forward(y, x[0], count); },
          .gradient = [=](F x, const float* dy, F dx) { cpu::gelu_input_gradient(dx[0], dy, x[0], count); }};
}

GradientCase swiglu(Index rows, Index features) {
  return {.op = "swiglu",
          .name = "swiglu",
          .inputs = {{"gate_up", Role::input, 2 * rows * features, -4.0, 4.0}},
          .outputs = rows * features,
          .forward = [=](D x, double* y) { reference::swiglu_forward(y, x[0], rows, features); },
          .gradient = [=](F x, const float* dy, F dx) { cpu::swiglu_input_gradient(dx[0], dy, x[0], rows, features); }};
}

GradientCase rope(Index batch, Index time, Index heads, Index head_size) {
  const Index stride = heads * head_size;
  const Index count = batch * time * stride;
  constexpr double theta = 10000.0;
  return {.op = "rope",
          .name = "rope",
          .inputs = {{"x", Role::input, count}},
          .outputs = count,
          .forward =
              [=](D x, double* y) {
                for (Index i = 0; i < count; ++i) y[i] = x[0][i];
                reference::rope(y, theta, 1.0, batch, time, heads, head_size, stride);
              },
          .gradient =
              [=](F, const float* dy, F dx) {
                auto table = floats(cpu::rope_table_floats(time, head_size));
                cpu::rope_table(table.data(), time, head_size, theta);
                for (Index i = 0; i < count; ++i) dx[0][i] = dy[i];
                cpu::rope_input_gradient(dx[0], table.data(), batch, time, heads, head_size, stride);
              }};
}

GradientCase attention(const AttentionShape& s, bool stored) {
  const Index rows = s.batch * s.time;
  return {.op = "attention",
          .name = stored ? "attention" : "attention recompute",
          .inputs = {{"q", Role::input, rows * s.q_stride},
                     {"k", Role::input, rows * s.kv_stride},
                     {"v", Role::input, rows * s.kv_stride}},
          .outputs = rows * s.heads * s.head_size,
          .forward =
              [=](D x, double* y) {
                auto p = doubles(cpu::attention_probability_floats(s));
                reference::attention_forward(y, p.data(), x[0], x[1], x[2], s);
              },
          .gradient =
              [=](F x, const float* dy, F dx) {
                auto o = floats(rows * s.heads * s.head_size);
                auto p = floats(cpu::attention_probability_floats(s));
                auto workspace = floats(cpu::attention_workspace_floats(s));
                float* probabilities = stored ? p.data() : nullptr;
                cpu::attention_forward(o.data(), probabilities, x[0], x[1], x[2], s, workspace.data());
                cpu::attention_input_gradient(dx[0], dx[1], dx[2], dy, probabilities, x[0], x[1], x[2], s,
                                              workspace.data());
              }};
}

// A loss has one output, the mean; dy scales its gradient.
GradientCase cross_entropy(Index rows, Index vocabulary) {
  return {.op = "cross_entropy",
          .name = "cross_entropy",
          .inputs = {{"logits", Role::input, rows * vocabulary, -4.0, 4.0},
                     {"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)}},
          .outputs = 1,
          .forward = [=](D x, double* y) { *y = reference::cross_entropy_loss(x[0], x.indices(1), rows, vocabulary); },
          .gradient =
              [=](F x, const float* dy, F dx) {
                for (Index i = 0; i < rows * vocabulary; ++i) dx[0][i] = x[0][i];
                cpu::cross_entropy_loss_and_gradient(dx[0], x.indices(1), rows, vocabulary,
                                                     *dy / static_cast<float>(rows));
              }};
}

// Only the predictions have a gradient: the targets are constants of the closure.
GradientCase mean_squared_error(Index rows, Index outputs) {
  const Index count = rows * outputs;
  auto targets = floats(count);
  for (Index i = 0; i < count; ++i) targets[static_cast<std::size_t>(i)] = static_cast<float>(i % 5) - 2.0F;
  return {.op = "mean_squared_error",
          .name = "mean_squared_error",
          .inputs = {{"predictions", Role::input, count, -4.0, 4.0}},
          .outputs = 1,
          .forward =
              [=](D x, double* y) {
                const std::vector<double> wide(targets.begin(), targets.end());
                *y = reference::mean_squared_error_loss(x[0], wide.data(), rows, outputs);
              },
          .gradient =
              [=](F x, const float* dy, F dx) {
                for (Index i = 0; i < count; ++i) dx[0][i] = x[0][i];
                cpu::mean_squared_error_loss_and_gradient(dx[0], targets.data(), rows, outputs,
                                                          *dy / static_cast<float>(rows));
              }};
}

}  // namespace

std::vector<GradientCase> gradient_cases() {
  const AttentionShape grouped{
      .batch = 2, .time = 9, .heads = 4, .kv_heads = 2, .head_size = 6, .q_stride = 24, .kv_stride = 12};
  return {embedding(2, 5, 7, 11),
          layer_norm(4, 13),
          rms_norm(4, 13),
          linear(6, 11, 9),
          gelu(67),
          swiglu(3, 19),
          rope(2, 6, 3, 8),
          attention(grouped, true),
          attention(grouped, false),
          cross_entropy(5, 23),
          mean_squared_error(5, 3)};
}

}  // namespace stagecraft::kernels
