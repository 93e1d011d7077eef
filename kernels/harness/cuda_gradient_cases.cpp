#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/bias.hpp"
#include "kernels/cuda/cross_entropy.hpp"
#include "kernels/cuda/embedding.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gelu.hpp"
#include "kernels/cuda/layer_norm.hpp"
#include "kernels/cuda/mean_squared_error.hpp"
#include "kernels/cuda/rms_norm.hpp"
#include "kernels/cuda/rope.hpp"
#include "kernels/cuda/swiglu.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

using F = const Arguments<float>&;

// Moves one call's tensors to the device and back; what it hands out lives as long as it does.
class Device {
 public:
  template <class T>
  T* upload(const T* from, Index count) {
    T* const to = make<T>(count);
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes<T>(count), cudaMemcpyHostToDevice, stream()));
    return to;
  }
  template <class T = float>
  T* make(Index count) {
    return buffers_.emplace_back(bytes<T>(count)).template as<T>();
  }
  void download(float* to, const float* from, Index count) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes<float>(count), cudaMemcpyDeviceToHost, stream()));
    stream_.synchronize();
  }
  cudaStream_t stream() const { return stream_.get(); }

 private:
  template <class T>
  static std::size_t bytes(Index count) {
    return static_cast<std::size_t>(count) * sizeof(T);
  }
  cuda::Stream stream_;
  std::vector<cuda::Buffer> buffers_;
};

std::vector<double> doubles(Index count) { return std::vector<double>(static_cast<std::size_t>(count)); }

GradientCase embedding(Index batch, Index time, Index channels, Index vocabulary) {
  const Index rows = batch * time;
  return {.op = "embedding",
          .name = "embedding",
          .inputs = {{"token_table", Role::input, vocabulary * channels},
                     {"position_table", Role::input, time * channels},
                     {"tokens", Role::indices, rows, 0.0, static_cast<double>(vocabulary)}},
          .outputs = rows * channels,
          .forward =
              [=](D x, double* y) { reference::embedding_forward(y, x.indices(2), x[0], x[1], batch, time, channels); },
          .gradient =
              [=](F x, const float* dy, F dx) {
                Device device;
                float* const d_tokens = device.upload(dx[0], vocabulary * channels);
                float* const d_positions = device.upload(dx[1], time * channels);
                const auto workspace = cuda::embedding_weight_gradient_workspace_bytes(batch, time, channels);
                cuda::embedding_weight_gradient(d_tokens, d_positions, device.upload(x.indices(2), rows),
                                                device.upload(dy, rows * channels), batch, time, channels,
                                                device.make<std::byte>(static_cast<Index>(workspace)), device.stream());
                device.download(dx[0], d_tokens, vocabulary * channels);
                device.download(dx[1], d_positions, time * channels);
              }};
}

GradientCase layer_norm(Index rows, Index channels) {
  const Index n = rows * channels;
  return {.op = "layer_norm",
          .name = "layer_norm",
          .inputs = {{"x", Role::input, n}, {"gamma", Role::input, channels}, {"beta", Role::input, channels}},
          .outputs = n,
          .forward =
              [=](D x, double* y) {
                auto mean = doubles(rows);
                auto rstd = doubles(rows);
                reference::layer_norm_forward(y, mean.data(), rstd.data(), x[0], x[1], x[2], rows, channels, epsilon);
              },
          .gradient =
              [=](F f, const float* dy_host, F dx_host) {
                Device device;
                const float* x = device.upload(f[0], n);
                const float* gamma = device.upload(f[1], channels);
                const float* beta = device.upload(f[2], channels);
                const float* dy = device.upload(dy_host, n);
                float* const mean = device.make(rows);
                float* const rstd = device.make(rows);
                float* const dx = device.make(n);
                float* const d_gamma = device.make(channels);
                float* const d_beta = device.make(channels);
                const cudaStream_t s = device.stream();
                cuda::layer_norm_forward(device.make(n), mean, rstd, x, gamma, beta, rows, channels, epsilon, s);
                cuda::layer_norm_input_gradient<float>(dx, nullptr, dy, x, gamma, mean, rstd, rows, channels, s);
                cuda::layer_norm_weight_gradient(
                    d_gamma, d_beta, dy, x, mean, rstd, rows, channels,
                    device.make(cuda::layer_norm_weight_gradient_workspace_floats(rows, channels)),
                    cuda::Accumulate::no, s);
                device.download(dx_host[0], dx, n);
                device.download(dx_host[1], d_gamma, channels);
                device.download(dx_host[2], d_beta, channels);
              }};
}

GradientCase rms_norm(Index rows, Index channels) {
  const Index n = rows * channels;
  return {.op = "rms_norm",
          .name = "rms_norm",
          .inputs = {{"x", Role::input, n}, {"gamma", Role::input, channels}},
          .outputs = n,
          .forward =
              [=](D x, double* y) {
                auto rstd = doubles(rows);
                reference::rms_norm_forward(y, rstd.data(), x[0], x[1], rows, channels, epsilon);
              },
          .gradient =
              [=](F f, const float* dy_host, F dx_host) {
                Device device;
                const float* x = device.upload(f[0], n);
                const float* gamma = device.upload(f[1], channels);
                const float* dy = device.upload(dy_host, n);
                float* const rstd = device.make(rows);
                float* const dx = device.make(n);
                float* const d_gamma = device.make(channels);
                const cudaStream_t s = device.stream();
                cuda::rms_norm_forward(device.make(n), rstd, x, gamma, rows, channels, epsilon, s);
                cuda::rms_norm_input_gradient<float>(dx, nullptr, dy, x, gamma, rstd, rows, channels, s);
                cuda::rms_norm_weight_gradient(
                    d_gamma, dy, x, rstd, rows, channels,
                    device.make(cuda::rms_norm_weight_gradient_workspace_floats(rows, channels)), cuda::Accumulate::no,
                    s);
                device.download(dx_host[0], dx, n);
                device.download(dx_host[1], d_gamma, channels);
              }};
}

GradientCase linear(CudaLibraries& libraries, Index rows, Index inputs, Index outputs) {
  return {.op = "linear",
          .name = "linear",
          .inputs = {{"x", Role::input, rows * inputs},
                     {"w", Role::input, outputs * inputs},
                     {"bias", Role::input, outputs}},
          .outputs = rows * outputs,
          .forward =
              [=](D x, double* y) {
                std::fill_n(y, rows * outputs, 0.0);
                reference::linear_forward_add(y, x[0], x[1], x[2], rows, inputs, outputs);
              },
          .gradient =
              [=, &libraries](F f, const float* dy_host, F dx_host) {
                Device device;
                const float* x = device.upload(f[0], rows * inputs);
                const float* w = device.upload(f[1], outputs * inputs);
                const float* dy = device.upload(dy_host, rows * outputs);
                float* const dx = device.make(rows * inputs);
                float* const dw = device.make(outputs * inputs);
                float* const d_bias = device.make(outputs);
                const cuda::GemmContext context = libraries.context(device.stream());
                cuda::linear_input_gradient(dx, dy, w, rows, inputs, outputs, cuda::Accumulate::no, context);
                cuda::linear_weight_gradient(dw, dy, x, rows, inputs, outputs, cuda::Accumulate::no, context);
                cuda::bias_gradient(d_bias, dy, rows, outputs,
                                    device.make(cuda::bias_gradient_workspace_floats(rows, outputs)),
                                    cuda::Accumulate::no, device.stream());
                device.download(dx_host[0], dx, rows * inputs);
                device.download(dx_host[1], dw, outputs * inputs);
                device.download(dx_host[2], d_bias, outputs);
              }};
}

GradientCase gelu(Index rows, Index channels) {
  const Index n = rows * channels;
  return {.op = "gelu",
          .name = "gelu",
          .inputs = {{"x", Role::input, n, -4.0, 4.0}, {"bias", Role::input, channels}},
          .outputs = n,
          .forward =
              [=](D x, double* y) {
                auto z = doubles(n);
                for (Index i = 0; i < n; ++i) z[static_cast<std::size_t>(i)] = x[0][i] + x[1][i % channels];
                reference::gelu_forward(y, z.data(), n);
              },
          .gradient =
              [=](F x, const float* dy, F dx_host) {
                Device device;
                float* const dx = device.make(n);
                float* const d_bias = device.make(channels);
                cuda::gelu_input_gradient<float>(dx, device.upload(dy, n), device.upload(x[0], n),
                                                 device.upload(x[1], channels), rows, channels, device.stream());
                cuda::bias_gradient(d_bias, dx, rows, channels,
                                    device.make(cuda::bias_gradient_workspace_floats(rows, channels)),
                                    cuda::Accumulate::no, device.stream());
                device.download(dx_host[0], dx, n);
                device.download(dx_host[1], d_bias, channels);
              }};
}

GradientCase swiglu(Index rows, Index features) {
  const Index n = rows * features;
  return {.op = "swiglu",
          .name = "swiglu",
          .inputs = {{"gate_up", Role::input, 2 * n, -4.0, 4.0}},
          .outputs = n,
          .forward = [=](D x, double* y) { reference::swiglu_forward(y, x[0], rows, features); },
          .gradient =
              [=](F x, const float* dy, F dx_host) {
                Device device;
                float* const dx = device.make(2 * n);
                cuda::swiglu_input_gradient<float>(dx, device.upload(dy, n), device.upload(x[0], 2 * n), rows, features,
                                                   device.stream());
                device.download(dx_host[0], dx, 2 * n);
              }};
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
                std::copy_n(x[0], count, y);
                reference::rope(y, theta, 1.0, batch, time, heads, head_size, stride);
              },
          .gradient =
              [=](F, const float* dy, F dx_host) {
                Device device;
                std::vector<float> table(static_cast<std::size_t>(time * head_size));
                for (Index t = 0; t < time; ++t) {
                  for (Index i = 0; i < head_size / 2; ++i) {
                    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_size);
                    const double angle = static_cast<double>(t) * std::pow(theta, exponent);
                    const auto at = static_cast<std::size_t>(t * head_size + i);
                    table[at] = static_cast<float>(std::cos(angle));
                    table[at + static_cast<std::size_t>(head_size / 2)] = static_cast<float>(std::sin(angle));
                  }
                }
                float* const dx = device.upload(dy, count);
                cuda::rope_input_gradient(dx, device.upload(table.data(), time * head_size), batch, time, heads,
                                          head_size, stride, device.stream());
                device.download(dx_host[0], dx, count);
              }};
}

GradientCase attention(const AttentionShape& s) {
  const Index rows = s.batch * s.time;
  const Index o_count = rows * s.heads * s.head_size;
  return {.op = "attention",
          .name = "attention",
          .inputs = {{"q", Role::input, rows * s.q_stride},
                     {"k", Role::input, rows * s.kv_stride},
                     {"v", Role::input, rows * s.kv_stride}},
          .outputs = o_count,
          .forward =
              [=](D x, double* y) {
                auto p = doubles(s.batch * s.heads * s.time * s.time);
                reference::attention_forward(y, p.data(), x[0], x[1], x[2], s);
              },
          .gradient =
              [=](F x, const float* dy, F dx_host) {
                Device device;
                const float* q = device.upload(x[0], rows * s.q_stride);
                const float* k = device.upload(x[1], rows * s.kv_stride);
                const float* v = device.upload(x[2], rows * s.kv_stride);
                float* const o = device.make(o_count);
                float* const log_sum = device.make(rows * s.heads);
                float* const dq = device.make(rows * s.q_stride);
                float* const dk = device.make(rows * s.kv_stride);
                float* const dv = device.make(rows * s.kv_stride);
                cuda::attention_forward(o, log_sum, q, k, v, s, device.stream());
                cuda::attention_input_gradient<float>(dq, dk, dv, device.upload(dy, o_count), o, log_sum, q, k, v, s,
                                                      device.make(cuda::attention_input_gradient_workspace_floats(s)),
                                                      device.stream());
                device.download(dx_host[0], dq, rows * s.q_stride);
                device.download(dx_host[1], dk, rows * s.kv_stride);
                device.download(dx_host[2], dv, rows * s.kv_stride);
              }};
}

// A loss has one output, the mean; dy scales its gradient.
GradientCase cross_entropy(Index rows, Index vocabulary) {
  const Index n = rows * vocabulary;
  return {.op = "cross_entropy",
          .name = "cross_entropy",
          .inputs = {{"logits", Role::input, n, -4.0, 4.0},
                     {"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)}},
          .outputs = 1,
          .forward = [=](D x, double* y) { *y = reference::cross_entropy_loss(x[0], x.indices(1), rows, vocabulary); },
          .gradient =
              [=](F x, const float* dy, F dx_host) {
                Device device;
                float* const logits = device.upload(x[0], n);
                cuda::cross_entropy_loss_and_gradient(device.make(rows), logits, device.upload(x.indices(1), rows),
                                                      rows, vocabulary, vocabulary, *dy / static_cast<float>(rows),
                                                      device.stream());
                device.download(dx_host[0], logits, n);
              }};
}

// Only the predictions have a gradient: the targets are constants of the closure.
GradientCase mean_squared_error(Index rows, Index outputs) {
  const Index n = rows * outputs;
  std::vector<float> targets(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) targets[static_cast<std::size_t>(i)] = static_cast<float>(i % 5) - 2.0F;
  return {.op = "mean_squared_error",
          .name = "mean_squared_error",
          .inputs = {{"predictions", Role::input, n, -4.0, 4.0}},
          .outputs = 1,
          .forward =
              [=](D x, double* y) {
                const std::vector<double> wide(targets.begin(), targets.end());
                *y = reference::mean_squared_error_loss(x[0], wide.data(), rows, outputs);
              },
          .gradient =
              [=](F x, const float* dy, F dx_host) {
                Device device;
                float* const predictions = device.upload(x[0], n);
                cuda::mean_squared_error_loss_and_gradient(device.make(rows), predictions,
                                                           device.upload(targets.data(), n), rows, outputs,
                                                           *dy / static_cast<float>(rows), device.stream());
                device.download(dx_host[0], predictions, n);
              }};
}

}  // namespace

std::vector<GradientCase> cuda_gradient_cases(CudaLibraries& libraries) {
  const AttentionShape grouped{
      .batch = 2, .time = 9, .heads = 4, .kv_heads = 2, .head_size = 6, .q_stride = 24, .kv_stride = 12};
  return {embedding(2, 5, 7, 11),
          layer_norm(4, 13),
          rms_norm(4, 13),
          linear(libraries, 6, 11, 9),
          gelu(5, 13),
          swiglu(3, 19),
          rope(2, 6, 3, 8),
          attention(grouped),
          cross_entropy(5, 23),
          mean_squared_error(5, 3)};
}

}  // namespace stagecraft::kernels
