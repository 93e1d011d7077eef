// LayerNorm or RMSNorm, whichever the network has, behind one set of calls.
#pragma once

#include <span>

#include "kernels/cuda/layer_norm.hpp"
#include "kernels/cuda/rms_norm.hpp"
#include "runtime/cuda/operations.hpp"

namespace stagecraft::cuda {

template <class T>
class Norm {
 public:
  // Takes its tensors from the front of `parameters`.
  Norm(const StageSpec& spec, const Engine& engine, std::span<const ParameterView>& parameters)
      : layer_norm_(spec.transformer.norm == NormKind::layer_norm),
        stream_(engine.stream()),
        rows_(spec.own_rows()),
        channels_(spec.transformer.hidden),
        epsilon_(static_cast<float>(spec.transformer.norm_epsilon)),
        gamma_(parameters[0]) {
    if (layer_norm_) beta_ = parameters[1];
    parameters = parameters.subspan(layer_norm_ ? 2 : 1);
  }

  // statistics: (2, n)
  void forward(T* y, float* statistics, const T* x) const {
    if (layer_norm_) {
      kernels::cuda::layer_norm_forward(y, statistics, statistics + rows_, x, weight(gamma_), weight(beta_), rows_,
                                        channels_, epsilon_, stream_);
    } else {
      kernels::cuda::rms_norm_forward(y, statistics, x, weight(gamma_), rows_, channels_, epsilon_, stream_);
    }
  }
  // dx = residual + the gradient through the norm; residual may be null.
  void input_gradient(T* dx, const T* residual, const T* dy, const T* x, const float* statistics) const {
    if (layer_norm_) {
      kernels::cuda::layer_norm_input_gradient(dx, residual, dy, x, weight(gamma_), statistics, statistics + rows_,
                                               rows_, channels_, stream_);
    } else {
      kernels::cuda::rms_norm_input_gradient(dx, residual, dy, x, weight(gamma_), statistics, rows_, channels_,
                                             stream_);
    }
  }
  void weight_gradient(const T* dy, const T* x, const float* statistics, std::byte* sums, Accumulate accumulate) const {
    auto* const workspace = reinterpret_cast<float*>(sums);
    if (layer_norm_) {
      kernels::cuda::layer_norm_weight_gradient(gamma_.gradient, beta_.gradient, dy, x, statistics, statistics + rows_,
                                                rows_, channels_, workspace, accumulate, stream_);
    } else {
      kernels::cuda::rms_norm_weight_gradient(gamma_.gradient, dy, x, statistics, rows_, channels_, workspace,
                                              accumulate, stream_);
    }
  }

 private:
  static const T* weight(const ParameterView& view) { return reinterpret_cast<const T*>(view.weight); }

  bool layer_norm_;
  cudaStream_t stream_;
  std::int64_t rows_, channels_;
  float epsilon_;
  ParameterView gamma_, beta_;
};

}  // namespace stagecraft::cuda
