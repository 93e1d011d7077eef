#include <algorithm>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
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

// What a threshold is for: a figure of a source, empty where it has none.
struct Figure {
  std::string_view name;
  std::string_view meaning;
  std::optional<double> (*of)(const SourceScore&);
};
constexpr Figure figures[] = {
    {"time", "predicted step times are off",
     [](const SourceScore& s) { return s.time.rows > 0 ? std::optional(s.time.mape_pct) : std::nullopt; }},
    {"memory", "predicted memory is off",
     [](const SourceScore& s) { return s.memory ? std::optional(s.memory->mape_pct) : std::nullopt; }},
    {"regret", "layouts predicted to be best take longer than the measured best, on the mean",
     [](const SourceScore& s) { return s.plans ? std::optional(s.plans->mean_regret_pct) : std::nullopt; }},
};

struct Threshold {
  const Figure* figure = figures;
  std::string source;  // the beginning of its name; empty: all
  double percent = 0;
};

Threshold parse_threshold(const std::string& text) {
  Threshold threshold;
  std::string rest = text;
  if (const auto colon = text.find(':'); colon != std::string::npos) {
    threshold.figure = std::find_if(std::begin(figures), std::end(figures),
                                    [&](const Figure& figure) { return figure.name == text.substr(0, colon); });
    rest = text.substr(colon + 1);
  }
  if (const auto equals = rest.find('='); equals != std::string::npos) {
    threshold.source = rest.substr(0, equals);
    rest = rest.substr(equals + 1);
  }
  if (threshold.figure == std::end(figures) || !CLI::detail::lexical_cast(rest, threshold.percent) ||
      !(threshold.percent >= 0)) {
    throw bad_input(
        "--threshold: expected a percentage such as 10, SOURCE=10 or memory:SOURCE=10 (time, memory, regret), got '{}'",
        printable(text));
  }
  return threshold;
}

void check(const std::vector<SourceScore>& scores, const std::vector<Threshold>& thresholds) {
  std::vector<std::string> faults;
  for (const Threshold& threshold : thresholds) {
    bool found = false;
    for (const SourceScore& score : scores) {
      if (!score.source.starts_with(threshold.source)) continue;
      found = true;
      const std::optional<double> percent = threshold.figure->of(score);
      if (!percent || *percent <= threshold.percent) continue;
      faults.push_back(fmt::format("{}: {} by {:.1f} %, more than {} %", score.source, threshold.figure->meaning,
                                   *percent, threshold.percent));
    }
    if (!found) throw bad_input("--threshold: no source begins with '{}'", printable(threshold.source));
  }
  if (!faults.empty()) throw Error(ErrorKind::check_failed, join(faults, "; "));
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
                      "Exit with 1 if a source's mean error of step times is above: PERCENT or SOURCE=PERCENT; "
                      "memory:... and regret:... for these");
  command->add_option("--plot", options->plot, "Write predicted against measured step times as a picture (.svg)");
  command->add_flag("--details", options->details,
                    "Also by model, number of devices and precision, and each group of layouts to choose from");
  command->add_flag("--json", options->json, "For scripts: every row with its prediction");
  set_examples(*command,
               "  stagecraft validate validation --plot validation.svg --details\n"
               "  stagecraft validate validation/korthikanti_2022_iteration_time.csv --threshold 8 --json\n"
               "  stagecraft validate validation --threshold zero_bubble=8 --threshold memory:zero_bubble=8");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
