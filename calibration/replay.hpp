// Predicts published measurements and scores the predictions.
//
// Errors are of predicted over measured, minus one, in percent. docs/validation.md has the definitions and the results.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/measurement.hpp"

namespace stagecraft {

struct Replayed {
  const Measurement* measurement = nullptr;
  StepEstimate estimate;
  double mfu = 0;           // measured; as published, else from the measured time
  double baseline_s = 0;    // FLOPs x bubble over devices x peak x one constant a source
  double memory_bytes = 0;  // predicted, counted as the publication counts
  // Time, and memory, predicted over measured minus one; empty where not measured.
  std::optional<double> time_error, memory_error;
};

struct ErrorScore {
  int rows = 0;
  double mape_pct = 0;
  double median_pct = 0;  // of absolute errors
  double worst_pct = 0;   // the largest absolute error, with its sign
  double bias_pct = 0;    // mean of the errors
};
ErrorScore score(std::span<const double> errors);

// Choosing among the measured layouts of one network, devices, sequence and batch: how much longer the predicted
// best takes than the measured best, and how alike the orders are.
struct PlanGroup {
  std::string model;
  std::int64_t devices = 0, sequence = 0, batch = 0;
  int rows = 0;
  double regret_pct = 0;
  double rank_correlation = 0;
};
struct PlanScore {
  std::vector<PlanGroup> by_group;
  int groups = 0;  // of at least `least_group` measured rows, not all of one layout
  double median_regret_pct = 0;
  double mean_regret_pct = 0;
  double worst_regret_pct = 0;
  double rank_correlation = 0;  // Spearman's, mean over the groups
};
inline constexpr int least_group = 4;

// Whether what ran out of memory was predicted to, and what ran was not.
struct FitScore {
  int rows = 0;
  int right = 0;
  int missed = 0;  // ran out of memory, predicted to fit
  int false_alarms = 0;
};

struct Part {
  std::string name;
  ErrorScore time;
};

struct SourceScore {
  std::string source;
  std::vector<Replayed> rows;
  std::vector<SkippedRow> skipped;
  double mfu_floor = 0;  // rows below are predicted and listed, and not part of `time` and `baseline`
  ErrorScore time;
  ErrorScore below_floor;
  ErrorScore baseline;
  double rank_correlation = 0;  // Spearman's, over all rows of `time`
  std::optional<PlanScore> plans;
  std::optional<ErrorScore> memory;
  std::optional<FitScore> fits;
  std::vector<Part> by_precision, by_model, by_devices;
};

// One row; `baseline_s` without the constant. REQUIRES of both: the argument outlives the result.
Replayed replay(const Measurement& measurement);
SourceScore replay(const MeasurementTable& table);

// Of the rows that are scored and ran on the device; to a tenth of a percent.
PublishedErrors published_errors(std::span<const SourceScore> scores, std::string_view device);

// Rows of a source are scored from this share of the peak on: below it the host or the
// network decides, and sweeps hold
// many such rows (validation/README.md).
double mfu_floor_of(std::string_view source);
// As published, else from the measured time. REQUIRES: a measured time.
double measured_mfu(const Measurement& measurement);

// Spearman's rank correlation, ties with their mean rank; 1 for fewer than two values.
double rank_correlation(std::span<const double> a, std::span<const double> b);

}  // namespace stagecraft
