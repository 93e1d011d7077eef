// A linear layer's tensors and widths.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/linear.hpp"
#include "runtime/cpu/parameters.hpp"

namespace stagecraft::cpu {

class Linear {
 public:
  // Takes its tensors from the front of `parameters`.
  Linear(std::int64_t rows, std::int64_t inputs, std::int64_t outputs, bool bias,
         std::span<const ParameterView>& parameters)
      : rows_(rows), inputs_(inputs), outputs_(outputs), weight_(parameters[0]) {
    if (bias) bias_ = parameters[1];
    parameters = parameters.subspan(bias ? 2 : 1);
  }

  void forward(float* y, const float* x) const {
    kernels::cpu::linear_forward(y, x, weight_.value, bias_.value, rows_, inputs_, outputs_);
  }
  // As a summand of a product that shards sum: one of them adds the bias.
  void forward_summand(float* y, const float* x, bool adds_bias) const {
    kernels::cpu::linear_forward(y, x, weight_.value, adds_bias ? bias_.value : nullptr, rows_, inputs_, outputs_);
  }
  void forward_add(float* y, const float* x) const {
    kernels::cpu::linear_forward_add(y, x, weight_.value, bias_.value, rows_, inputs_, outputs_);
  }
  void input_gradient(float* dx, const float* dy) const {
    kernels::cpu::linear_input_gradient(dx, dy, weight_.value, rows_, inputs_, outputs_);
  }
  void weight_gradient(const float* dy, const float* x) const {
    kernels::cpu::linear_weight_gradient(weight_.gradient, bias_.gradient, dy, x, rows_, inputs_, outputs_);
  }

 private:
  std::int64_t rows_, inputs_, outputs_;
  ParameterView weight_, bias_;
};

}  // namespace stagecraft::cpu
