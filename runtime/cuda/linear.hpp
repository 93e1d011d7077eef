// A linear layer's tensors and widths.
#pragma once

#include <span>

#include "kernels/cuda/bias.hpp"
#include "runtime/cuda/operations.hpp"

namespace stagecraft::cuda {

template <class T>
class Linear {
 public:
  // Takes its tensors from the front of `parameters`.
  Linear(const Engine& engine, std::int64_t rows, std::int64_t inputs, std::int64_t outputs, bool bias,
         std::span<const ParameterView>& parameters)
      : engine_(engine), rows_(rows), inputs_(inputs), outputs_(outputs), weight_(parameters[0]) {
    if (bias) bias_ = parameters[1];
    parameters = parameters.subspan(bias ? 2 : 1);
  }

  const T* bias() const { return reinterpret_cast<const T*>(bias_.weight); }

  void forward(T* y, const T* x) const {
    kernels::cuda::linear_forward(y, x, weight(), bias(), rows_, inputs_, outputs_, Accumulate::no, engine_.gemm);
  }
  // z = x W^T + bias, y = gelu(z)
  void forward_gelu(Bf16* y, Bf16* z, const Bf16* x) const {
    kernels::cuda::linear_forward_gelu(y, z, x, weight(), bias(), rows_, inputs_, outputs_, engine_.gemm);
  }
  // The gradient of z where the layer's input was gelu(z).
  void input_gradient_gelu(Bf16* dz, const Bf16* dy, const Bf16* z) const {
    kernels::cuda::linear_input_gradient_gelu(dz, dy, weight(), z, rows_, inputs_, outputs_, engine_.gemm);
  }
  // For a bias that the next operation adds.
  void forward_without_bias(T* y, const T* x) const {
    kernels::cuda::linear_forward<T>(y, x, weight(), nullptr, rows_, inputs_, outputs_, Accumulate::no, engine_.gemm);
  }
  // As a summand of a product that shards sum: one of them adds the bias.
  void forward_summand(T* y, const T* x, bool adds_bias) const {
    if (adds_bias) return forward(y, x);
    forward_without_bias(y, x);
  }
  // y = residual + x W^T + bias
  void forward_add(T* y, const T* residual, const T* x) const {
    kernels::cuda::linear_forward_add(y, residual, x, weight(), bias(), rows_, inputs_, outputs_, engine_.gemm);
  }
  void input_gradient(T* dx, const T* dy) const {
    kernels::cuda::linear_input_gradient(dx, dy, weight(), rows_, inputs_, outputs_, Accumulate::no, engine_.gemm);
  }
  void weight_gradient(const T* dy, const T* x, std::byte* sums, Accumulate accumulate) const {
    kernels::cuda::linear_weight_gradient(weight_.gradient, dy, x, rows_, inputs_, outputs_, accumulate, engine_.gemm);
    if (bias_.gradient == nullptr) return;
    kernels::cuda::bias_gradient(bias_.gradient, dy, rows_, outputs_, reinterpret_cast<float*>(sums), accumulate,
                                 engine_.stream());
  }

  // How the products are called.
  struct Uses {
    bool adds = false;           // forward_add
    bool bias = true;            // the forward adds the bias
    bool gelu = false;           // forward_gelu
    bool gelu_gradient = false;  // input_gradient_gelu
  };
  // Chooses their algorithms.
  void prepare(std::span<std::byte> scratch, const Uses& uses) const {
    const auto tune = [&](const GemmShape& shape) {
      // What is larger than the memory at hand keeps the library's first choice.
      if (kernels::cuda::Gemm::tuning_bytes(shape) > scratch.size()) return;
      engine_.gemm.gemm->tune(shape, scratch, engine_.gemm.workspace, engine_.stream());
    };
    const auto type = engine_.gemm.fp32_inputs;
    tune(uses.gelu ? kernels::cuda::linear_forward_gelu_shape(rows_, inputs_, outputs_, bias() != nullptr)
                   : kernels::cuda::linear_forward_shape<T>(rows_, inputs_, outputs_, uses.bias && bias() != nullptr,
                                                            uses.adds ? Accumulate::yes : Accumulate::no, type));
    tune(uses.gelu_gradient
             ? kernels::cuda::linear_input_gradient_gelu_shape(rows_, inputs_, outputs_)
             : kernels::cuda::linear_input_gradient_shape<T>(rows_, inputs_, outputs_, Accumulate::no, type));
    for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
      tune(kernels::cuda::linear_weight_gradient_shape<T>(rows_, inputs_, outputs_, accumulate, type));
    }
  }

 private:
  const T* weight() const { return reinterpret_cast<const T*>(weight_.weight); }

  Engine engine_;
  std::int64_t rows_, inputs_, outputs_;
  ParameterView weight_, bias_;
};

}  // namespace stagecraft::cuda
