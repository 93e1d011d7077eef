#include "cli/backend.hpp"

#include <array>
#include <cstdlib>

namespace stagecraft {
namespace {

constexpr std::array<std::pair<std::string_view, Backend>, 2> names{{{"cpu", Backend::cpu}, {"cuda", Backend::cuda}}};

}  // namespace

std::span<const std::pair<std::string_view, Backend>> backend_names() { return names; }

std::filesystem::path algorithm_cache_file(const std::string& file) {
  if (!file.empty()) return file;
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  const char* const home = std::getenv("HOME");
  if (cache == nullptr && home == nullptr) return {};
  const std::filesystem::path parent =
      cache != nullptr ? std::filesystem::path(cache) : std::filesystem::path(home) / ".cache";
  std::error_code error;
  std::filesystem::create_directories(parent / "stagecraft", error);
  return error ? std::filesystem::path() : parent / "stagecraft" / "gemm-algorithms.txt";
}

}  // namespace stagecraft
