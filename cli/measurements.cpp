#include "cli/measurements.hpp"

#include <algorithm>
#include <filesystem>

#include "models/error.hpp"
#include "models/files.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const fs::path path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    const std::size_t first = files.size();
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".csv") files.push_back(entry.path());
    }
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
    if (files.size() == first) throw bad_input("{}: expected .csv files in the folder, found none", path.string());
  }
  return files;
}

template <class Row>
void append(const std::vector<Row>& from, std::vector<Row>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

PublishedTables load_tables(const std::vector<std::string>& paths, const Presets& presets) {
  PublishedTables tables;
  for (const fs::path& file : files_of(paths)) {
    const CsvTable table(read_file(file), file.string());
    Microbenchmarks micro = read_microbenchmarks(table, presets);
    append(micro.kernels, tables.microbenchmarks.kernels);
    append(micro.collectives, tables.microbenchmarks.collectives);
    append(micro.skipped, tables.microbenchmarks.skipped);
    const bool named = std::find(paths.begin(), paths.end(), file.string()) != paths.end();
    const bool none = micro.kernels.empty() && micro.collectives.empty() && micro.skipped.empty();
    if (is_of_training_steps(table) || (named && none)) tables.steps.push_back(read_measurements(table, presets));
  }
  return tables;
}

}  // namespace stagecraft
