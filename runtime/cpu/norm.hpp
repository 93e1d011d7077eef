// LayerNorm or RMSNorm, whichever the network has, behind one set of calls.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/layer_norm.hpp"
#include "kernels/cpu/rms_norm.hpp"
#include "models/network/network.hpp"
#include "runtime/cpu/parameters.hpp"

namespace stagecraft::cpu {

class Norm {
 public:
  // Takes its tensors from the front of `parameters`.
  Norm(const Transformer& t, std::int64_t rows, std::span<const ParameterView>& parameters)
      : layer_norm_(t.norm == NormKind::layer_norm),
        rows_(rows),
        channels_(t.hidden),
        epsilon_(static_cast<float>(t.norm_epsilon)),
        gamma_(parameters[0]) {
    if (layer_norm_) beta_ = parameters[1];
    parameters = parameters.subspan(layer_norm_ ? 2 : 1);
  }

  std::int64_t statistics_floats() const { return layer_norm_ ? 2 * rows_ : rows_; }

  void forward(float* y, float* statistics, const float* x) const {
    if (layer_norm_) {
      kernels::cpu::layer_norm_forward(y, statistics, statistics + rows_, x, gamma_.value, beta_.value, rows_,
                                       channels_, epsilon_);
    } else {
      kernels::cpu::rms_norm_forward(y, statistics, x, gamma_.value, rows_, channels_, epsilon_);
    }
  }
  // dx = ...
  void input_gradient(float* dx, const float* dy, const float* x, const float* statistics) const {
    if (layer_norm_) {
      kernels::cpu::layer_norm_input_gradient(dx, dy, x, gamma_.value, statistics, statistics + rows_, rows_,
                                              channels_);
    } else {
      kernels::cpu::rms_norm_input_gradient(dx, dy, x, gamma_.value, statistics, rows_, channels_);
    }
  }
  // dx += ...
  void input_gradient_add(float* dx, const float* dy, const float* x, const float* statistics) const {
    if (layer_norm_) {
      kernels::cpu::layer_norm_input_gradient_add(dx, dy, x, gamma_.value, statistics, statistics + rows_, rows_,
                                                  channels_);
    } else {
      kernels::cpu::rms_norm_input_gradient_add(dx, dy, x, gamma_.value, statistics, rows_, channels_);
    }
  }
  void weight_gradient(const float* dy, const float* x, const float* statistics) const {
    if (layer_norm_) {
      kernels::cpu::layer_norm_weight_gradient(gamma_.gradient, beta_.gradient, dy, x, statistics, statistics + rows_,
                                               rows_, channels_);
    } else {
      kernels::cpu::rms_norm_weight_gradient(gamma_.gradient, dy, x, statistics, rows_, channels_);
    }
  }

 private:
  bool layer_norm_;
  std::int64_t rows_, channels_;
  float epsilon_;
  ParameterView gamma_, beta_;
};

}  // namespace stagecraft::cpu
