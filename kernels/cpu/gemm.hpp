// The one place where OpenBLAS is called: row-major single-precision C = alpha op(A) op(B) + beta C.
//
// Private to kernels/cpu. beta = 0 overwrites C whatever it holds, NaN included.
#pragma once

#include <cblas.h>

#include <cstdint>

namespace stagecraft::kernels::cpu {

enum class Transpose { no, yes };

struct Matrix {
  const float* data;
  std::int64_t stride;  // floats from a row, as stored, to the next
  Transpose transpose = Transpose::no;
};

// op(a) is (m, k), op(b) is (k, n), c is (m, n) with rows c_stride apart.
inline void gemm(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix a, Matrix b, float beta, float* c,
                 std::int64_t c_stride) {
  const auto flag = [](Transpose t) { return t == Transpose::yes ? CblasTrans : CblasNoTrans; };
  const auto size = [](std::int64_t s) { return static_cast<blasint>(s); };
  cblas_sgemm(CblasRowMajor, flag(a.transpose), flag(b.transpose), size(m), size(n), size(k), alpha, a.data,
              size(a.stride), b.data, size(b.stride), beta, c, size(c_stride));
}

}  // namespace stagecraft::kernels::cpu
