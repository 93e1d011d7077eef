#include "kernels/cpu/linear.hpp"

#include "kernels/cpu/gemm.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {
namespace {

// OpenBLAS adds into C for beta = 1 at the price of the zero fill it does for beta = 0: starting from the bias is free.
STAGECRAFT_VECTORISED void fill_rows(float* y, const float* row, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t n = 0; n < rows; ++n) {
    float* y_row = y + n * columns;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) y_row[c] = row[c];
  }
}

STAGECRAFT_VECTORISED void add_to_rows(float* y, const float* row, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t n = 0; n < rows; ++n) {
    float* y_row = y + n * columns;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) y_row[c] += row[c];
  }
}

STAGECRAFT_VECTORISED void add_column_sums(float* sums, const float* x, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* x_row = x + n * columns;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) sums[c] += x_row[c];
  }
}

}  // namespace

void set_blas_threads_per_caller(int threads) { openblas_set_num_threads(threads); }

void linear_forward(float* y, const float* x, const float* w, const float* bias, std::int64_t rows, std::int64_t inputs,
                    std::int64_t outputs) {
  if (bias != nullptr) fill_rows(y, bias, rows, outputs);
  const float beta = bias != nullptr ? 1.0F : 0.0F;
  gemm(rows, outputs, inputs, 1.0F, {x, inputs}, {w, inputs, Transpose::yes}, beta, y, outputs);
}

void linear_forward_add(float* y, const float* x, const float* w, const float* bias, std::int64_t rows,
                        std::int64_t inputs, std::int64_t outputs) {
  if (bias != nullptr) add_to_rows(y, bias, rows, outputs);
  gemm(rows, outputs, inputs, 1.0F, {x, inputs}, {w, inputs, Transpose::yes}, 1.0F, y, outputs);
}

void linear_input_gradient(float* dx, const float* dy, const float* w, std::int64_t rows, std::int64_t inputs,
                           std::int64_t outputs) {
  gemm(rows, inputs, outputs, 1.0F, {dy, outputs}, {w, inputs}, 0.0F, dx, inputs);
}

void linear_input_gradient_add(float* dx, const float* dy, const float* w, std::int64_t rows, std::int64_t inputs,
                               std::int64_t outputs) {
  gemm(rows, inputs, outputs, 1.0F, {dy, outputs}, {w, inputs}, 1.0F, dx, inputs);
}

void linear_weight_gradient(float* dw, float* d_bias, const float* dy, const float* x, std::int64_t rows,
                            std::int64_t inputs, std::int64_t outputs) {
  gemm(outputs, inputs, rows, 1.0F, {dy, outputs, Transpose::yes}, {x, inputs}, 1.0F, dw, inputs);
  if (d_bias != nullptr) add_column_sums(d_bias, dy, rows, outputs);
}

}  // namespace stagecraft::kernels::cpu
