#include "models/presets.hpp"

#include <algorithm>
#include <cstdlib>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {

namespace fs = std::filesystem;

fs::path presets_directory() {
  if (const char* folder = std::getenv("STAGECRAFT_PRESETS")) {
    if (!fs::is_directory(folder)) throw bad_input("STAGECRAFT_PRESETS: expected a folder, got '{}'", folder);
    return folder;
  }
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error);
  for (fs::path folder = binary.parent_path(); !error && !folder.empty(); folder = folder.parent_path()) {
    for (const char* candidate : {"share/stagecraft/presets", "presets"}) {
      if (fs::is_directory(folder / candidate / "networks", error)) return folder / candidate;
    }
    if (folder == folder.root_path()) break;
    error.clear();
  }
  throw bad_input("the preset files were not found beside the program; set STAGECRAFT_PRESETS to their folder");
}

std::vector<std::string> preset_names(const std::string& subfolder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(presets_directory() / subfolder, error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path resolve_preset(const std::string& subfolder, const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json")) return name_or_path;
  const std::vector<std::string> names = preset_names(subfolder);
  if (std::find(names.begin(), names.end(), name_or_path) == names.end()) {
    throw bad_input("'{}': no such preset in {}{}; known: {}; a file is given as a path ending in .json",
                    printable(name_or_path), subfolder, did_you_mean(name_or_path, names), join(names));
  }
  return presets_directory() / subfolder / (name_or_path + ".json");
}

}  // namespace stagecraft
