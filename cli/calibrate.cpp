#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration/fit.hpp"
#include "calibration/score_text.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/measurements.hpp"
#include "models/files.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;

struct CalibrateOptions {
  std::vector<std::string> paths;
  std::vector<std::string> devices;
  std::string output;
  bool cross_validate = false;
  bool keep = false;
};

// Only what ran on the devices takes part, and only what it depends on moves.
void keep_devices(const std::vector<std::string>& devices, PublishedTables& tables, Presets& presets) {
  if (devices.empty()) return;
  std::vector<std::string> known;
  for (const DevicePreset& preset : presets.devices) known.push_back(preset.type.name);
  for (const std::string& device : devices) {
    if (std::find(known.begin(), known.end(), device) != known.end()) continue;
    throw bad_input("--device: expected one of {}, got '{}'{}", join(known), printable(device),
                    did_you_mean(device, known));
  }
  const auto other = [&](const auto& row) {
    return std::find(devices.begin(), devices.end(), row.device) == devices.end();
  };
  for (MeasurementTable& table : tables.steps) std::erase_if(table.measurements, other);
  std::erase_if(tables.microbenchmarks.kernels, other);
  std::erase_if(tables.microbenchmarks.collectives, other);
}

std::vector<SourceScore> scores_of(std::vector<MeasurementTable>& tables, const Presets& presets) {
  std::vector<SourceScore> scores;
  for (MeasurementTable& table : tables) {
    for (Measurement& measurement : table.measurements) set_machine(presets, measurement);
    if (!table.measurements.empty()) scores.push_back(replay(table));
  }
  return scores;
}

// Says on a terminal how far the fit is.
FitOptions shown(std::string what, Progress& progress) {
  FitOptions options;
  options.progress = [what = std::move(what), &progress](int done, int all, double least) {
    progress.show(fmt::format("{}, search {} of {}: {:.3f}", what, done, all, least));
  };
  return options;
}

// What cross-validation compares.
struct Figure {
  const char* title;
  std::optional<double> (*of)(const SourceScore&);  // empty: the source has no such rows
  int decimals;
};
constexpr Figure figures[] = {
    {"step time, MAPE in %",
     [](const SourceScore& s) { return s.time.rows > 0 ? std::optional(s.time.mape_pct) : std::nullopt; }, 1},
    {"memory, MAPE in %",
     [](const SourceScore& s) { return s.memory ? std::optional(s.memory->mape_pct) : std::nullopt; }, 1},
    {"mean regret in %",
     [](const SourceScore& s) { return s.plans ? std::optional(s.plans->mean_regret_pct) : std::nullopt; }, 1},
    {"rank in groups",
     [](const SourceScore& s) { return s.plans ? std::optional(s.plans->rank_correlation) : std::nullopt; }, 3},
};

// Fits to every other row and tests on the rest, then the other way round.
std::string cross_validation(const PublishedTables& tables, const Presets& presets) {
  Progress progress;
  // By source: seen and unseen rows of the first fit, seen and unseen of the second.
  std::vector<std::vector<SourceScore>> scores(tables.steps.size());
  for (const std::size_t half : {0, 1}) {
    const FitResult result = fit(
        tables.steps, tables.microbenchmarks, presets, [half](std::size_t, std::size_t row) { return row % 2 == half; },
        shown(half == 0 ? "first half" : "second half", progress));
    for (std::size_t t = 0; t < tables.steps.size(); ++t) {
      for (const bool seen : {true, false}) {
        MeasurementTable part{tables.steps[t].source, {}, {}};
        for (std::size_t i = seen ? half : 1 - half; i < tables.steps[t].measurements.size(); i += 2) {
          part.measurements.push_back(tables.steps[t].measurements[i]);
          set_machine(result.presets, part.measurements.back());
        }
        scores[t].push_back(replay(part));
        scores[t].back().rows.clear();  // they point at `part`
      }
    }
  }
  progress.show("");
  std::string text;
  for (const Figure& figure : figures) {
    std::vector<std::vector<std::string>> lines = {
        {figure.title, "rows", "first half", "unseen half", "second half", "unseen half"}};
    for (std::size_t t = 0; t < tables.steps.size(); ++t) {
      std::vector<std::string> line = {tables.steps[t].source, std::to_string(tables.steps[t].measurements.size())};
      bool any = false;
      for (const SourceScore& score : scores[t]) {
        const std::optional<double> value = figure.of(score);
        any |= value.has_value();
        line.push_back(value ? fmt::format("{:.{}f}", *value, figure.decimals) : "-");
      }
      if (any) lines.push_back(line);
    }
    if (!text.empty()) text += "\n";
    text += format_table(lines);
  }
  return text;
}

template <class Preset, class Name>
void save(const std::vector<Preset>& presets, const fs::path& folder, Name name) {
  fs::create_directories(folder);
  for (const Preset& preset : presets) write_file(folder / (name(preset) + ".json"), to_json(preset).dump(2) + "\n");
}

void save(const Presets& presets, const fs::path& folder) {
  save(presets.devices, folder / "devices", [](const DevicePreset& p) { return p.type.name; });
  save(presets.fabrics, folder / "fabrics", [](const FabricPreset& p) { return p.name; });
  save(presets.frameworks, folder / "frameworks", [](const FrameworkPreset& p) { return p.name; });
}

void run(const CalibrateOptions& options) {
  Presets presets = load_calibration();
  PublishedTables tables = load_tables(options.paths, presets);
  std::vector<MeasurementTable> all = tables.steps;
  keep_devices(options.devices, tables, presets);
  if (options.cross_validate) {
    print(cross_validation(tables, presets));
    return;
  }
  if (!options.keep) {
    Progress progress;
    FitResult result = fit(
        tables.steps, tables.microbenchmarks, presets, [](auto, auto) { return true; }, shown("fitting", progress));
    progress.show("");
    note(fmt::format(
        "sum of the sources' mean errors: {:.3f} with the constants as they were, {:.3f} after {} evaluations",
        result.before, result.after, with_thousands(result.evaluations)));
    presets = std::move(result.presets);
  }
  const std::vector<SourceScore> every = scores_of(all, presets);
  for (DevicePreset& preset : presets.devices) preset.published = published_errors(every, preset.type.name);
  if (!options.output.empty()) save(presets, options.output);
  print(to_text(scores_of(tables.steps, presets)));
}

}  // namespace

void add_calibrate_command(CLI::App& app) {
  const auto options = std::make_shared<CalibrateOptions>();
  CLI::App* command =
      app.add_subcommand("calibrate", "Fit the constants of devices, fabrics and frameworks to published measurements");
  command->add_option("PATH", options->paths, "Tables of measurements (.csv), or folders of them")->required();
  command->add_option("--device", options->devices, "Only what ran on this device; repeatable. Default: all");
  CLI::Option* cross =
      command->add_flag("--cross-validate", options->cross_validate,
                        "Fit to one half of the rows, test on the other, and the other way round; writes nothing");
  command->add_flag("--keep", options->keep, "Fit nothing: only say in the files how far off their constants are")
      ->excludes(cross);
  command->add_option("-o,--output", options->output,
                      "Folder for the fitted files: devices/, fabrics/ and frameworks/, as in the presets");
  set_examples(*command,
               "  stagecraft calibrate validation -o models/presets\n"
               "  stagecraft calibrate validation --keep -o models/presets\n"
               "  stagecraft calibrate validation --device A100-SXM4-80GB -o fitted\n"
               "  stagecraft calibrate validation --cross-validate");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
