#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "calibration/score_svg.hpp"
#include "calibration/score_text.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/measurements.hpp"
#include "models/files.hpp"

namespace stagecraft {
namespace {

struct ValidateOptions {
  std::vector<std::string> paths;
  std::vector<std::string> thresholds;
  std::string plot;
  bool json = false;
  bool details = false;
};

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

void check(const std::vector<SourceScore>& scores, const std::vector<Threshold>& thresholds) {
  std::vector<std::string> faults;
  for (const Threshold& threshold : thresholds) {
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
  std::vector<Threshold> thresholds;
  for (const std::string& text : options.thresholds) thresholds.push_back(parse_threshold(text));
  const Presets presets = load_calibration();
  const PublishedTables tables = load_tables(options.paths, presets);
  const std::vector<MicrobenchmarkScore> microbenchmarks = scores_of(tables.microbenchmarks, presets);
  std::vector<SourceScore> scores;
  for (const MeasurementTable& table : tables.steps) scores.push_back(replay(table));
  if (!options.plot.empty()) write_file(options.plot, to_svg(scores));
  if (options.json) {
    Json json = to_json(scores);
    json["microbenchmarks"] = to_json(microbenchmarks);
    print_json(json);
  } else {
    print(to_text(scores) + to_text(microbenchmarks) + (options.details ? details_text(scores) : ""));
  }
  check(scores, thresholds);
}

}  // namespace

void add_validate_command(CLI::App& app) {
  const auto options = std::make_shared<ValidateOptions>();
  CLI::App* command = app.add_subcommand("validate", "Predict published measurements and say how far off that is");
  command->add_option("PATH", options->paths, "Tables of measurements (.csv), or folders of them")->required();
  command->add_option("--threshold", options->thresholds,
                      "Exit with 1 if a source's mean error is above (percent, or SOURCE=percent)");
  command->add_option("--plot", options->plot, "Write predicted against measured step times as a picture (.svg)");
  command->add_flag("--details", options->details,
                    "Also by model, number of devices and precision, and each group of layouts to choose from");
  command->add_flag("--json", options->json, "For scripts: every row with its prediction");
  set_examples(*command,
               "  stagecraft validate validation --plot validation.svg --details\n"
               "  stagecraft validate validation/korthikanti_2022_iteration_time.csv --threshold 8 --json");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
