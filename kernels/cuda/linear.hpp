// Linear layer y = x W^T + b on cuBLASLt. W is stored (outputs, inputs), as in PyTorch.
//
// The head of a language model with tied weights is the same operation with the token table as W. Each function is one
// matrix product; linear_*_shape says which, for Gemm::tune. The bias gradient is bias.hpp's.
#pragma once

#include "kernels/cuda/gemm.hpp"

namespace stagecraft::kernels::cuda {

// Where products run: kept together since every call needs all of it.
struct GemmContext {
  Gemm* gemm;
  std::byte* workspace;  // gemm_workspace_bytes
  cudaStream_t stream;
  MatrixType fp32_inputs = MatrixType::fp32;  // tf32: multiply float matrices on tensor cores
};

template <class T>
MatrixType matrix_type(MatrixType fp32_inputs) {
  return sizeof(T) == 2 ? MatrixType::bf16 : fp32_inputs;
}
template <class T>
MatrixType output_type() {
  return sizeof(T) == 2 ? MatrixType::bf16 : MatrixType::fp32;
}

template <class T>
GemmShape linear_forward_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs, bool bias,
                               Accumulate accumulate, MatrixType fp32_inputs = MatrixType::fp32) {
  return {.rows = rows,
          .columns = outputs,
          .depth = inputs,
          .inputs = matrix_type<T>(fp32_inputs),
          .output = output_type<T>(),
          .b = Transpose::yes,
          .bias = bias,
          .accumulate = accumulate};
}
template <class T>
GemmShape linear_input_gradient_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                                      Accumulate accumulate, MatrixType fp32_inputs = MatrixType::fp32) {
  return {.rows = rows,
          .columns = inputs,
          .depth = outputs,
          .inputs = matrix_type<T>(fp32_inputs),
          .output = output_type<T>(),
          .accumulate = accumulate};
}
template <class T>
GemmShape linear_weight_gradient_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                                       Accumulate accumulate, MatrixType fp32_inputs = MatrixType::fp32) {
  return {.rows = outputs,
          .columns = inputs,
          .depth = rows,
          .inputs = matrix_type<T>(fp32_inputs),
          .output = MatrixType::fp32,
          .a = Transpose::yes,
          .accumulate = accumulate};
}

// y = x W^T + b, or with accumulate y += x W^T + b: the layer and the residual connection around it. bias may be null.
template <class T>
void linear_forward(T* y,           // (N, outputs)
                    const T* x,     // (N, inputs)
                    const T* w,     // (outputs, inputs)
                    const T* bias,  // (outputs) or null
                    std::int64_t rows, std::int64_t inputs, std::int64_t outputs, Accumulate accumulate,
                    const GemmContext& context) {
  context.gemm->run(linear_forward_shape<T>(rows, inputs, outputs, bias != nullptr, accumulate, context.fp32_inputs), y,
                    x, w, bias, context.workspace, context.stream);
}

// The shapes of the two below.
inline GemmShape linear_forward_gelu_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs, bool bias) {
  GemmShape shape = linear_forward_shape<Bf16>(rows, inputs, outputs, bias, Accumulate::no);
  shape.epilogue = Epilogue::gelu;
  return shape;
}
inline GemmShape linear_input_gradient_gelu_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
  GemmShape shape = linear_input_gradient_shape<Bf16>(rows, inputs, outputs, Accumulate::no);
  shape.epilogue = Epilogue::gelu_gradient;
  return shape;
}

// The layer and the GELU behind it: z = x W^T + b, y = gelu(z).
inline void linear_forward_gelu(Bf16* y,           // (N, outputs)
                                Bf16* z,           // (N, outputs)
                                const Bf16* x,     // (N, inputs)
                                const Bf16* w,     // (outputs, inputs)
                                const Bf16* bias,  // (outputs) or null
                                std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                                const GemmContext& context) {
  context.gemm->run(linear_forward_gelu_shape(rows, inputs, outputs, bias != nullptr), y, x, w, bias, context.workspace,
                    context.stream, nullptr, z);
}

// The gradient of a layer whose input was x = gelu(z), through both: dz = (dy W) * gelu'(z).
inline void linear_input_gradient_gelu(Bf16* dz,        // (N, inputs)
                                       const Bf16* dy,  // (N, outputs)
                                       const Bf16* w,   // (outputs, inputs)
                                       const Bf16* z,   // (N, inputs)
                                       std::int64_t rows, std::int64_t inputs, std::int64_t outputs,
                                       const GemmContext& context) {
  context.gemm->run(linear_input_gradient_gelu_shape(rows, inputs, outputs), dz, dy, w, nullptr, context.workspace,
                    context.stream, nullptr, const_cast<Bf16*>(z));
}

// y = residual + x W^T + b: the layer and the residual connection around it, without a copy. y may be residual.
template <class T>
void linear_forward_add(T* y,               // (N, outputs)
                        const T* residual,  // (N, outputs)
                        const T* x,         // (N, inputs)
                        const T* w,         // (outputs, inputs)
                        const T* bias,      // (outputs) or null
                        std::int64_t rows, std::int64_t inputs, std::int64_t outputs, const GemmContext& context) {
  context.gemm->run(
      linear_forward_shape<T>(rows, inputs, outputs, bias != nullptr, Accumulate::yes, context.fp32_inputs), y, x, w,
      bias, context.workspace, context.stream, residual);
}

// dx = dy W, or dx += dy W.
template <class T>
void linear_input_gradient(T* dx,        // (N, inputs)
                           const T* dy,  // (N, outputs)
                           const T* w,   // (outputs, inputs)
                           std::int64_t rows, std::int64_t inputs, std::int64_t outputs, Accumulate accumulate,
                           const GemmContext& context) {
  context.gemm->run(linear_input_gradient_shape<T>(rows, inputs, outputs, accumulate, context.fp32_inputs), dx, dy, w,
                    nullptr, context.workspace, context.stream);
}

// dw = dy^T x in the first micro-batch of a step, dw += dy^T x later.
template <class T>
void linear_weight_gradient(float* dw,    // (outputs, inputs)
                            const T* dy,  // (N, outputs)
                            const T* x,   // (N, inputs)
                            std::int64_t rows, std::int64_t inputs, std::int64_t outputs, Accumulate accumulate,
                            const GemmContext& context) {
  context.gemm->run(linear_weight_gradient_shape<T>(rows, inputs, outputs, accumulate, context.fp32_inputs), dw, dy, x,
                    nullptr, context.workspace, context.stream);
}

}  // namespace stagecraft::kernels::cuda
