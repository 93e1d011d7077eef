#include <algorithm>
#include <filesystem>
#include <memory>

#include "calibration/score_text.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/files.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;

struct ValidateOptions {
  std::vector<std::string> paths;
  std::vector<std::string> thresholds;
  bool json = false;
};

// The files, and of folders the .csv files in them, sorted.
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

std::vector<MeasurementTable> load_tables(const ValidateOptions& options) {
  const Presets presets = load_calibration();
  std::vector<MeasurementTable> tables;
  for (const fs::path& file : files_of(options.paths)) {
    const CsvTable table(read_file(file), file.string());
    // A folder holds tables of kernels and collectives as well; a file that was named must be one of training steps.
    const bool named = std::find(options.paths.begin(), options.paths.end(), file.string()) != options.paths.end();
    if (named || is_of_training_steps(table)) tables.push_back(read_measurements(table, presets));
  }
  return tables;
}

struct Threshold {
  std::string source;  // the beginning of its name; empty: all
  double percent = 0;
};

Threshold parse_threshold(const std::string& text) {
  const auto equals = text.find('=');
  const std::string number = equals == std::string::npos ? text : text.substr(equals + 1);
  double percent = 0;
  if (!CLI::detail::lexical_cast(number, percent) || !(percent >= 0)) {
    throw bad_input("--threshold: expected a percentage such as 10 or SOURCE=10, got '{}'", printable(text));
  }
  return {equals == std::string::npos ? "" : text.substr(0, equals), percent};
}

void check(const std::vector<SourceScore>& scores, const std::vector<std::string>& texts) {
  std::vector<std::string> faults;
  for (const std::string& text : texts) {
    const Threshold threshold = parse_threshold(text);
    bool found = false;
    for (const SourceScore& score : scores) {
      if (!score.source.starts_with(threshold.source)) continue;
      found = true;
      if (score.time.rows == 0 || score.time.mape_pct <= threshold.percent) continue;
      faults.push_back(
          fmt::format("{} by {:.1f} %, more than {} %", score.source, score.time.mape_pct, threshold.percent));
    }
    if (!found) throw bad_input("--threshold: no source begins with '{}'", printable(threshold.source));
  }
  if (!faults.empty()) throw Error(ErrorKind::check_failed, "predicted step times are off: " + join(faults, "; "));
}

void run(const ValidateOptions& options) {
  const std::vector<MeasurementTable> tables = load_tables(options);
  std::vector<SourceScore> scores;
  for (const MeasurementTable& table : tables) scores.push_back(replay(table));
  if (options.json) {
    print_json(to_json(scores));
  } else {
    print(to_text(scores));
  }
  check(scores, options.thresholds);
}

}  // namespace

void add_validate_command(CLI::App& app) {
  const auto options = std::make_shared<ValidateOptions>();
  CLI::App* command = app.add_subcommand("validate", "Predict published measurements and say how far off that is");
  command->add_option("PATH", options->paths, "Tables of measurements (.csv), or folders of them")->required();
  command->add_option("--threshold", options->thresholds,
                      "Exit with 1 if a source's mean error is above (percent, or SOURCE=percent)");
  command->add_flag("--json", options->json, "For scripts: every row with its prediction");
  set_examples(*command,
               "  stagecraft validate validation\n"
               "  stagecraft validate validation/korthikanti_2022_iteration_time.csv --threshold 8 --json");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
