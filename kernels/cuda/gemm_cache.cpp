#include "kernels/cuda/gemm_cache.hpp"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <system_error>

#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {
namespace {

constexpr const char* title = "# stagecraft matrix product algorithms, version 1";

}  // namespace

std::string gemm_cache_key(const std::string& device, std::size_t library_version, const std::string& shape) {
  return device + '\t' + std::to_string(library_version) + '\t' + shape;
}

GemmCache read_gemm_cache(const std::filesystem::path& path) {
  GemmCache cache;
  if (path.empty() || !std::filesystem::exists(path)) return cache;
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line) || line != title) {
    throw Error(path.string() + ":1: expected \"" + title + "\"");
  }
  for (int number = 2; std::getline(in, line); ++number) {
    // Device, version and shape hold spaces but no tabs; what follows them are numbers.
    std::size_t end_of_key = 0;
    for (int part = 0; part < 3 && end_of_key != std::string::npos; ++part) {
      end_of_key = line.find('\t', end_of_key + (part == 0 ? 0 : 1));
    }
    GemmChoice choice;
    std::istringstream numbers(end_of_key == std::string::npos ? "" : line.substr(end_of_key));
    numbers >> choice.seconds >> std::hex;
    for (std::uint64_t& word : choice.algorithm) numbers >> word;
    if (numbers.fail() || !(numbers >> std::ws).eof()) {
      throw Error(path.string() + ":" + std::to_string(number) +
                  ": expected device, library version, shape, seconds and the 8 words of an algorithm");
    }
    cache.insert_or_assign(line.substr(0, end_of_key), choice);
  }
  return cache;
}

void write_gemm_cache(const std::filesystem::path& path, const GemmCache& cache) {
  std::filesystem::path temporary = path;
  temporary += "." + std::to_string(getpid()) + ".tmp";
  std::ofstream out(temporary);
  out.precision(9);
  out << title << '\n';
  for (const auto& [key, choice] : cache) {
    out << key << '\t' << choice.seconds << std::hex;
    for (const std::uint64_t word : choice.algorithm) out << '\t' << word;
    out << std::dec << '\n';
  }
  out.close();
  std::error_code failure;
  if (out) std::filesystem::rename(temporary, path, failure);
  if (!out || failure) throw Error(path.string() + ": cannot be written");
}

}  // namespace stagecraft::kernels::cuda
