#include "kernels/cuda/layer_norm.hpp"
#include "kernels/cuda/rms_norm.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

// sum = x + addend as the operation stores it.
template <class T>
void add_rounded(double* sum, const double* x, const double* addend, Index count) {
  for (Index i = 0; i < count; ++i) sum[i] = rounded(x[i] + addend[i], storage_of<T>());
}

void copy(double* to, const double* from, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = from[i];
}

}  // namespace

template <class T>
void add_layer_norm(CudaCases& cases, Index rows, Index channels) {
  const Index n = rows * channels;
  const std::string shape = fmt::format("{} N={} C={}", type_name<T>(), rows, channels);
  const Tensor x = tensor_of<T>("x", Role::input, n, -1.0, 3.0);
  const Tensor y = tensor_of<T>("y", Role::output, n);
  const Tensor dx = tensor_of<T>("dx", Role::output, n);
  const Tensor dy = tensor_of<T>("dy", Role::input, n);
  const Tensor gamma = tensor_of<T>("gamma", Role::input, channels);
  const Tensor beta = tensor_of<T>("beta", Role::input, channels);
  const Tensor mean{"mean", Role::input, rows, 0.5, 1.5};
  const Tensor rstd{"rstd", Role::input, rows, 0.5, 1.5};
  const Tensor mean_out{"mean", Role::output, rows};
  const Tensor rstd_out{"rstd", Role::output, rows};
  const auto add = [&](const char* name, const std::vector<Tensor>& tensors, auto candidate, auto reference) {
    cases.push_back({.op = "layer_norm",
                     .name = std::string(name) + " " + shape,
                     .tensors = tensors,
                     .candidate = candidate,
                     .reference = reference});
  };
  add(
      "layer_norm_forward", {y, mean_out, rstd_out, x, gamma, beta},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::layer_norm_forward(d.at<T>(0), d.at<float>(1), d.at<float>(2), d.at<const T>(3), d.at<const T>(4),
                                 d.at<const T>(5), rows, channels, epsilon, s);
      },
      [=](D d) { reference::layer_norm_forward(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels, epsilon); });
  add(
      "layer_norm_forward_residual",
      {y, tensor_of<T>("sum", Role::output, n), mean_out, rstd_out, x, tensor_of<T>("addend", Role::input, n), gamma,
       beta},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::layer_norm_forward_residual(d.at<T>(0), d.at<T>(1), d.at<float>(2), d.at<float>(3), d.at<const T>(4),
                                          d.at<const T>(5), d.at<const T>(6), d.at<const T>(7), rows, channels, epsilon,
                                          s);
      },
      [=](D d) {
        add_rounded<T>(d[1], d[4], d[5], n);
        reference::layer_norm_forward(d[0], d[2], d[3], d[1], d[6], d[7], rows, channels, epsilon);
      });
  add(
      "layer_norm_input_gradient", {dx, dy, x, gamma, mean, rstd},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::layer_norm_input_gradient<T>(d.at<T>(0), nullptr, d.at<T>(1), d.at<T>(2), d.at<T>(3), d.at<float>(4),
                                           d.at<float>(5), rows, channels, s);
      },
      [=](D d) {
        zero(d[0], n);
        reference::layer_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels);
      });
  add(
      "layer_norm_input_gradient residual", {dx, dy, x, gamma, mean, rstd, tensor_of<T>("residual", Role::input, n)},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::layer_norm_input_gradient<T>(d.at<T>(0), d.at<T>(6), d.at<T>(1), d.at<T>(2), d.at<T>(3), d.at<float>(4),
                                           d.at<float>(5), rows, channels, s);
      },
      [=](D d) {
        copy(d[0], d[6], n);
        reference::layer_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels);
      });
  for (const bool accumulate : {false, true}) {
    const Role role = accumulate ? Role::in_out : Role::output;
    add(
        accumulate ? "layer_norm_weight_gradient accumulate" : "layer_norm_weight_gradient",
        {{"d_gamma", role, channels},
         {"d_beta", role, channels},
         dy,
         x,
         mean,
         rstd,
         {"workspace", Role::scratch, cuda::layer_norm_weight_gradient_workspace_floats(rows, channels)}},
        [=](const DeviceArguments& d, cudaStream_t s) {
          cuda::layer_norm_weight_gradient<T>(d.at<float>(0), d.at<float>(1), d.at<T>(2), d.at<T>(3), d.at<float>(4),
                                              d.at<float>(5), rows, channels, d.at<float>(6),
                                              accumulate ? cuda::Accumulate::yes : cuda::Accumulate::no, s);
        },
        [=](D d) {
          if (!accumulate) {
            zero(d[0], channels);
            zero(d[1], channels);
          }
          reference::layer_norm_weight_gradient(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels);
        });
  }
}

template <class T>
void add_rms_norm(CudaCases& cases, Index rows, Index channels) {
  const Index n = rows * channels;
  const std::string shape = fmt::format("{} N={} C={}", type_name<T>(), rows, channels);
  const Tensor x = tensor_of<T>("x", Role::input, n);
  const Tensor y = tensor_of<T>("y", Role::output, n);
  const Tensor dx = tensor_of<T>("dx", Role::output, n);
  const Tensor dy = tensor_of<T>("dy", Role::input, n);
  const Tensor gamma = tensor_of<T>("gamma", Role::input, channels);
  const Tensor rstd{"rstd", Role::input, rows, 0.5, 1.5};
  const Tensor rstd_out{"rstd", Role::output, rows};
  const auto add = [&](const char* name, const std::vector<Tensor>& tensors, auto candidate, auto reference) {
    cases.push_back({.op = "rms_norm",
                     .name = std::string(name) + " " + shape,
                     .tensors = tensors,
                     .candidate = candidate,
                     .reference = reference});
  };
  add(
      "rms_norm_forward", {y, rstd_out, x, gamma},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::rms_norm_forward(d.at<T>(0), d.at<float>(1), d.at<const T>(2), d.at<const T>(3), rows, channels, epsilon,
                               s);
      },
      [=](D d) { reference::rms_norm_forward(d[0], d[1], d[2], d[3], rows, channels, epsilon); });
  add(
      "rms_norm_forward_residual",
      {y, tensor_of<T>("sum", Role::output, n), rstd_out, x, tensor_of<T>("addend", Role::input, n), gamma},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::rms_norm_forward_residual(d.at<T>(0), d.at<T>(1), d.at<float>(2), d.at<const T>(3), d.at<const T>(4),
                                        d.at<const T>(5), rows, channels, epsilon, s);
      },
      [=](D d) {
        add_rounded<T>(d[1], d[3], d[4], n);
        reference::rms_norm_forward(d[0], d[2], d[1], d[5], rows, channels, epsilon);
      });
  add(
      "rms_norm_input_gradient", {dx, dy, x, gamma, rstd},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::rms_norm_input_gradient<T>(d.at<T>(0), nullptr, d.at<T>(1), d.at<T>(2), d.at<T>(3), d.at<float>(4), rows,
                                         channels, s);
      },
      [=](D d) {
        zero(d[0], n);
        reference::rms_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], rows, channels);
      });
  add(
      "rms_norm_input_gradient residual", {dx, dy, x, gamma, rstd, tensor_of<T>("residual", Role::input, n)},
      [=](const DeviceArguments& d, cudaStream_t s) {
        cuda::rms_norm_input_gradient<T>(d.at<T>(0), d.at<T>(5), d.at<T>(1), d.at<T>(2), d.at<T>(3), d.at<float>(4),
                                         rows, channels, s);
      },
      [=](D d) {
        copy(d[0], d[5], n);
        reference::rms_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], rows, channels);
      });
  for (const bool accumulate : {false, true}) {
    add(
        accumulate ? "rms_norm_weight_gradient accumulate" : "rms_norm_weight_gradient",
        {{"d_gamma", accumulate ? Role::in_out : Role::output, channels},
         dy,
         x,
         rstd,
         {"workspace", Role::scratch, cuda::rms_norm_weight_gradient_workspace_floats(rows, channels)}},
        [=](const DeviceArguments& d, cudaStream_t s) {
          cuda::rms_norm_weight_gradient<T>(d.at<float>(0), d.at<T>(1), d.at<T>(2), d.at<float>(3), rows, channels,
                                            d.at<float>(4), accumulate ? cuda::Accumulate::yes : cuda::Accumulate::no,
                                            s);
        },
        [=](D d) {
          if (!accumulate) zero(d[0], channels);
          reference::rms_norm_weight_gradient(d[0], d[1], d[2], d[3], rows, channels);
        });
  }
}

template void add_layer_norm<float>(CudaCases&, Index, Index);
template void add_layer_norm<cuda::Bf16>(CudaCases&, Index, Index);
template void add_rms_norm<float>(CudaCases&, Index, Index);
template void add_rms_norm<cuda::Bf16>(CudaCases&, Index, Index);

}  // namespace stagecraft::kernels
