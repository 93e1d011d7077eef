#include "calibration/fit.hpp"

#include <gmock/gmock.h>

#include <cmath>

#include "calibration/replay.hpp"
#include "models/files.hpp"
#include "tests/calibration/rows.hpp"

namespace stagecraft {
namespace {

// Rows of several sizes, measured on a machine whose products reach 0.6 of the peak.
MeasurementTable measured_with(double matmul, const std::string& device = "A100-SXM4-80GB") {
  std::vector<std::map<std::string, std::string>> rows;
  Presets presets = load_calibration();
  for (DevicePreset& device : presets.devices) device.constants.matmul = matmul;
  for (const char* microbatch : {"1", "2", "4", "8"}) {
    auto row = complete_row();
    row["gpu"] = device;
    row["micro_batch"] = microbatch;
    Measurement m = read_rows({row}).measurements.at(0);
    set_machine(presets, m);
    row["iter_time_s"] = fmt::format("{:.9g}", StepModel(m.job, m.machine).estimate(m.layout).time.value());
    rows.push_back(row);
  }
  return read_rows(rows);
}

Presets only_matmul_is_fitted() {
  Presets presets = load_calibration();
  for (DevicePreset& p : presets.devices) p.fitted = {"matmul"};
  for (FabricPreset& p : presets.fabrics) p.fitted.clear();
  for (FrameworkPreset& p : presets.frameworks) p.fitted.clear();
  return presets;
}

double matmul_of(const Presets& presets) { return find_device(presets, "A100-SXM4-80GB")->constants.matmul; }

TEST(Fit, FindsTheConstantThatMadeTheMeasurements) {
  const MeasurementTable table = measured_with(0.6);
  const FitResult result = fit({&table, 1}, {}, only_matmul_is_fitted(), [](auto, auto) { return true; });
  EXPECT_NEAR(matmul_of(result.presets), 0.6, 0.006);
  EXPECT_LT(result.after, 0.01);
  EXPECT_GT(result.before, 10 * result.after);
}

TEST(Fit, TakesDevicesThatAreLikeAnotherAlong) {
  const std::string like = "A100-SXM4-40GB";
  const MeasurementTable table = measured_with(0.6, like);
  Presets presets = only_matmul_is_fitted();
  for (DevicePreset& p : presets.devices) {
    if (p.type.name == like) p.fitted.clear();
  }
  const FitResult result = fit({&table, 1}, {}, presets, [](auto, auto) { return true; });
  EXPECT_NEAR(matmul_of(result.presets), 0.6, 0.006) << "rows of the other count";
  EXPECT_EQ(find_device(result.presets, like)->constants.matmul, matmul_of(result.presets));
}

TEST(Fit, DependsOnTheMeasurementsAlone) {
  const MeasurementTable table = measured_with(0.6);
  const auto run = [&](double start) {
    Presets presets = load_calibration();
    for (DevicePreset& device : presets.devices) {
      for (const std::string& name : device.fitted) {
        for (const auto& constant : constant_table<DeviceConstants>()) {
          if (constant.name == name) device.constants.*constant.member *= start;
        }
      }
    }
    return fit({&table, 1}, {}, presets, [](auto, auto) { return true; }, {.leaps = 3});
  };
  const FitResult first = run(1), second = run(0.8);
  EXPECT_NE(first.before, second.before);
  EXPECT_EQ(first.after, second.after);
  const auto device = [](const FitResult& result) { return find_device(result.presets, "A100-SXM4-80GB")->constants; };
  EXPECT_EQ(device(first), device(second));
}

// Two constants that stand for one another, where a search of one at a time stays on a slope; a leap leaves it.
TEST(Fit, LeapsFindWhatOneConstantAtATimeDoesNot) {
  const std::string path = fmt::format("{}/validation/hagemann_layouts_a100.csv", PROJECT_FOLDER);
  const Presets presets = load_calibration();
  const MeasurementTable table = read_measurements(CsvTable(read_file(path), path), presets);
  const auto after = [&](int leaps) {
    return fit({&table, 1}, {}, presets, [](auto, auto) { return true; }, {.leaps = leaps}).after;
  };
  const double without = after(0);
  EXPECT_LT(after(2), 0.995 * without);
}

TEST(Fit, LooksOnlyAtTheRowsItIsGiven) {
  MeasurementTable table = measured_with(0.6);
  *table.measurements[0].time_s *= 3;
  const FitResult result = fit({&table, 1}, {}, only_matmul_is_fitted(), [](auto, std::size_t row) { return row > 0; });
  EXPECT_NEAR(matmul_of(result.presets), 0.6, 0.006);
}

TEST(Fit, LeavesConstantsThatAreNotFitted) {
  const MeasurementTable table = measured_with(0.6);
  Presets presets = only_matmul_is_fitted();
  for (DevicePreset& p : presets.devices) p.fitted.clear();
  const FitResult result = fit({&table, 1}, {}, presets, [](auto, auto) { return true; });
  EXPECT_EQ(matmul_of(result.presets), matmul_of(presets));
  EXPECT_EQ(result.before, result.after);
}

// Halves of the published rows, in turn: what one half taught must hold on the other.
TEST(Fit, HoldsOnRowsItHasNotSeen) {
  const Presets presets = load_calibration();
  std::vector<MeasurementTable> tables;
  for (const char* source : {"vtrain_a100_multi_node", "vtrain_a100_single_node", "hagemann_layouts_a100"}) {
    const std::string path = fmt::format("{}/validation/{}.csv", PROJECT_FOLDER, source);
    tables.push_back(read_measurements(CsvTable(read_file(path), path), presets));
  }
  for (const std::size_t half : {0, 1}) {
    const FitResult result =
        fit(tables, {}, presets, [&](auto, std::size_t row) { return row % 2 == half; }, {.leaps = 1});
    for (const MeasurementTable& table : tables) {
      MeasurementTable unseen{table.source, {}, {}};
      for (std::size_t i = 1 - half; i < table.measurements.size(); i += 2) {
        unseen.measurements.push_back(table.measurements[i]);
        set_machine(result.presets, unseen.measurements.back());
      }
      EXPECT_LT(replay(unseen).time.mape_pct, 12) << table.source;
    }
  }
}

}  // namespace
}  // namespace stagecraft
