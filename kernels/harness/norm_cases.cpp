#include "kernels/cpu/layer_norm.hpp"
#include "kernels/cpu/rms_norm.hpp"
#include "kernels/harness/cpu_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {

void add_layer_norm(Cases& cases, Index rows, Index channels) {
  const Index n = rows * channels;
  const std::string shape = fmt::format("N={} C={}", rows, channels);
  const Tensor x{"x", Role::input, n, -1.0, 3.0};
  const Tensor dy{"dy", Role::input, n};
  const Tensor gamma{"gamma", Role::input, channels};
  const Tensor mean{"mean", Role::input, rows, 0.5, 1.5};
  const Tensor rstd{"rstd", Role::input, rows, 0.5, 1.5};
  cases.push_back(
      {.op = "layer_norm",
       .name = "layer_norm_forward " + shape,
       .tensors = {{"y", Role::output, n},
                   {"mean", Role::output, rows},
                   {"rstd", Role::output, rows},
                   x,
                   gamma,
                   {"beta", Role::input, channels}},
       .candidate = [=](F f) { cpu::layer_norm_forward(f[0], f[1], f[2], f[3], f[4], f[5], rows, channels, epsilon); },
       .reference =
           [=](D d) { reference::layer_norm_forward(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels, epsilon); }});
  cases.push_back(
      {.op = "layer_norm",
       .name = "layer_norm_input_gradient " + shape,
       .tensors = {{"dx", Role::output, n}, dy, x, gamma, mean, rstd},
       .candidate = [=](F f) { cpu::layer_norm_input_gradient(f[0], f[1], f[2], f[3], f[4], f[5], rows, channels); },
       .reference =
           [=](D d) {
             zero(d[0], n);
             reference::layer_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels);
           }});
  cases.push_back(
      {.op = "layer_norm",
       .name = "layer_norm_input_gradient_add " + shape,
       .tensors = {{"dx", Role::in_out, n}, dy, x, gamma, mean, rstd},
       .candidate =
           [=](F f) { cpu::layer_norm_input_gradient_add(f[0], f[1], f[2], f[3], f[4], f[5], rows, channels); },
       .reference =
           [=](D d) { reference::layer_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels); }});
  cases.push_back(
      {.op = "layer_norm",
       .name = "layer_norm_weight_gradient " + shape,
       .tensors = {{"d_gamma", Role::in_out, channels}, {"d_beta", Role::in_out, channels}, dy, x, mean, rstd},
       .candidate = [=](F f) { cpu::layer_norm_weight_gradient(f[0], f[1], f[2], f[3], f[4], f[5], rows, channels); },
       .reference =
           [=](D d) { reference::layer_norm_weight_gradient(d[0], d[1], d[2], d[3], d[4], d[5], rows, channels); }});
}

void add_rms_norm(Cases& cases, Index rows, Index channels) {
  const Index n = rows * channels;
  const std::string shape = fmt::format("N={} C={}", rows, channels);
  const Tensor x{"x", Role::input, n};
  const Tensor dy{"dy", Role::input, n};
  const Tensor gamma{"gamma", Role::input, channels};
  const Tensor rstd{"rstd", Role::input, rows, 0.5, 1.5};
  cases.push_back(
      {.op = "rms_norm",
       .name = "rms_norm_forward " + shape,
       .tensors = {{"y", Role::output, n}, {"rstd", Role::output, rows}, x, gamma},
       .candidate = [=](F f) { cpu::rms_norm_forward(f[0], f[1], f[2], f[3], rows, channels, epsilon); },
       .reference = [=](D d) { reference::rms_norm_forward(d[0], d[1], d[2], d[3], rows, channels, epsilon); }});
  cases.push_back(
      {.op = "rms_norm",
       .name = "rms_norm_input_gradient " + shape,
       .tensors = {{"dx", Role::output, n}, dy, x, gamma, rstd},
       .candidate = [=](F f) { cpu::rms_norm_input_gradient(f[0], f[1], f[2], f[3], f[4], rows, channels); },
       .reference =
           [=](D d) {
             zero(d[0], n);
             reference::rms_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], rows, channels);
           }});
  cases.push_back(
      {.op = "rms_norm",
       .name = "rms_norm_input_gradient_add " + shape,
       .tensors = {{"dx", Role::in_out, n}, dy, x, gamma, rstd},
       .candidate = [=](F f) { cpu::rms_norm_input_gradient_add(f[0], f[1], f[2], f[3], f[4], rows, channels); },
       .reference =
           [=](D d) { reference::rms_norm_input_gradient_add(d[0], d[1], d[2], d[3], d[4], rows, channels); }});
  cases.push_back(
      {.op = "rms_norm",
       .name = "rms_norm_weight_gradient " + shape,
       .tensors = {{"d_gamma", Role::in_out, channels}, dy, x, rstd},
       .candidate = [=](F f) { cpu::rms_norm_weight_gradient(f[0], f[1], f[2], f[3], rows, channels); },
       .reference = [=](D d) { reference::rms_norm_weight_gradient(d[0], d[1], d[2], d[3], rows, channels); }});
}

}  // namespace stagecraft::kernels
