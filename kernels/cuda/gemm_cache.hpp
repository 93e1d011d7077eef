// The file in which Gemm keeps the algorithms that it chose: text, a line a choice, in the order of the keys.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace stagecraft::kernels::cuda {

struct GemmChoice {
  std::array<std::uint64_t, 8> algorithm{};  // cublasLtMatmulAlgo_t, which its library version alone can read
  double seconds = 0.0;                      // of one product when it was timed; 0 if it was not

  bool operator==(const GemmChoice&) const = default;
};

// By gemm_cache_key.
using GemmCache = std::map<std::string, GemmChoice>;

// REQUIRES: no tab or line end in `device` or `shape`.
std::string gemm_cache_key(const std::string& device, std::size_t library_version, const std::string& shape);

// Empty if there is no such file, or no path. Throws Error naming file and line if it is not such a file.
GemmCache read_gemm_cache(const std::filesystem::path& path);

// Writes to a temporary file and renames it, so that several ranks may write at once: the last one wins. Throws Error.
void write_gemm_cache(const std::filesystem::path& path, const GemmCache& cache);

}  // namespace stagecraft::kernels::cuda
