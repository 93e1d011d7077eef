#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "models/error.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "libstagecraft_cuda.so";

// As presets are found: beside the program or in a folder above it.
fs::path find_library() {
  if (const char* file = std::getenv("STAGECRAFT_CUDA_MODULE")) return file;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (fs::path folder = program.parent_path(); !error && !folder.empty(); folder = folder.parent_path()) {
    for (const char* candidate : {"", "lib/stagecraft", "runtime/cuda"}) {
      if (fs::exists(folder / candidate / file_name, error)) return folder / candidate / file_name;
    }
    if (folder == folder.root_path()) break;
    error.clear();
  }
  throw device_error(
      "this build has no CUDA part: {} was not found beside the program (set STAGECRAFT_CUDA_MODULE to its path)",
      file_name);
}

Module& load() {
  const fs::path path = find_library();
  // Never closed: what it made lives as long as the program.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw device_error("the CUDA part cannot be loaded: {}", dlerror());
  const auto function = reinterpret_cast<ModuleFunction>(dlsym(library, module_symbol));
  Module* const module = function == nullptr ? nullptr : function(module_version);
  if (module == nullptr) throw device_error("{} belongs to another version of this program", path.string());
  return *module;
}

}  // namespace

Module& load_module() {
  static Module& module = load();
  return module;
}

}  // namespace stagecraft::cuda
