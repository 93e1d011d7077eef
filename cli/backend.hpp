// What `run` and `profile` ask about backends.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/trainer.hpp"

namespace stagecraft {

std::span<const std::pair<std::string_view, Backend>> backend_names();

// The file itself, or when it is empty one in XDG_CACHE_HOME or ~/.cache; none where neither can be written.
std::filesystem::path algorithm_cache_file(const std::string& file);

}  // namespace stagecraft
