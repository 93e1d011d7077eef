// Where the preset files are: networks/*.json and clusters/*.json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace stagecraft {

// $STAGECRAFT_PRESETS if set, else the first `share/stagecraft/presets` or `presets` beside the running binary or in a
// folder above it (an installed tree, a bundle, a build folder). Throws bad_input when there is none.
std::filesystem::path presets_directory();

// Names of the files in a subfolder ("networks", "clusters") without ".json", sorted.
std::vector<std::string> preset_names(const std::string& subfolder);

// Resolves what a user typed: a path when it holds '/' or ends in ".json", else a preset.
// Throws bad_input for an unknown preset, with the nearest name and the list.
std::filesystem::path resolve_preset(const std::string& subfolder, const std::string& name_or_path);

}  // namespace stagecraft
