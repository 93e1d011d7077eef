// Matrix products through cuBLASLt: row-major C = op(A) op(B) (+ bias) (+ C), with the algorithm that was fastest when
// it was timed.
//
// The library's own first choice is up to 15 % slower than the best of its candidates, and it does not look at beta.
// tune() times the candidates of a shape once; run() uses what it found, or without it the library's first choice. The
// same algorithm gives the same bits; the choice, and with it the bits, may differ between shapes, library versions and
// devices, so runs that must agree share a cache file.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

enum class MatrixType {
  fp32,
  tf32,  // stored as float, multiplied with 10 bits of fraction on tensor cores
  bf16,
};

enum class Transpose { no, yes };

// What happens to a product before it is stored, with a second matrix `aux` shaped as C, both bf16.
enum class Epilogue {
  none,
  gelu,           // C = gelu(op(A) op(B) (+ bias)); aux receives what gelu is taken of
  gelu_gradient,  // C = (op(A) op(B)) * gelu'(aux)
};

struct GemmShape {
  std::int64_t rows;     // of C
  std::int64_t columns;  // of C
  std::int64_t depth;    // summed over
  MatrixType inputs = MatrixType::bf16;
  MatrixType output = MatrixType::bf16;  // bf16 only if the inputs are; fp32 accumulates bf16 products in full
  Transpose a = Transpose::no;           // a is stored (rows, depth), or with yes (depth, rows)
  Transpose b = Transpose::no;           // b is stored (depth, columns), or with yes (columns, depth)
  bool bias = false;                     // of the output's type, (columns)
  Accumulate accumulate = Accumulate::no;
  Epilogue epilogue = Epilogue::none;
  auto operator<=>(const GemmShape&) const = default;  // NOLINT(modernize-use-nullptr): a mistake of clang-tidy 14

  double flops() const;
  // "4096x4800x1600 NT bf16>bf16 +bias +c": what the cache file calls it.
  std::string text() const;
};

// What Hopper's kernels want; each concurrent stream needs its own.
inline constexpr std::size_t gemm_workspace_bytes = std::size_t{32} << 20;

// Of one device (the current one when made) and one thread.
class Gemm {
 public:
  // `cache`: a text file with the choices of earlier runs, read if it exists; entries of other devices and library
  // versions are kept but not used. Empty: no file. Throws Error if the file is not such a file.
  // `multiprocessors`: how many of the device's the streams have, where it is cut into slices; 0: all.
  explicit Gemm(std::filesystem::path cache = {}, int multiprocessors = 0);
  ~Gemm();
  Gemm(Gemm&&) noexcept;
  Gemm& operator=(Gemm&&) noexcept;

  // Device memory that tune() needs at least.
  static std::size_t tuning_bytes(const GemmShape& shape);

  // Times up to 16 candidates on random numbers unless a choice is known, and writes it to the file (to a temporary
  // name, then renamed). Overwrites `scratch`; with room for several sets of matrices they take turns, so that caches
  // hold no more of them than in a training step. Waits for the stream. Not to be captured. Returns the seconds of one
  // product. REQUIRES, unless a choice is known: tuning_bytes of scratch.
  double tune(const GemmShape& shape, std::span<std::byte> scratch, std::byte* workspace, cudaStream_t stream);

  // bias is read only if the shape has one. A shape that accumulates adds to c what `addend`, shaped as c, holds: c
  // itself when null. `aux` is the epilogue's. REQUIRES: workspace of gemm_workspace_bytes, aligned to 256.
  void run(const GemmShape& shape, void* c, const void* a, const void* b, const void* bias, std::byte* workspace,
           cudaStream_t stream, const void* addend = nullptr, void* aux = nullptr);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stagecraft::kernels::cuda
