// Scores for people and for scripts.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "calibration/microbenchmark.hpp"
#include "calibration/replay.hpp"
#include "models/json_reader.hpp"

namespace stagecraft {

// Tables, 100 columns wide: times, then plans, memory and fits where they were measured.
std::string to_text(std::span<const SourceScore> scores);
// Each source by model, number of devices and precision, and each group of layouts that a plan was chosen from.
std::string details_text(std::span<const SourceScore> scores);

// Times of single kernels and collectives, predicted against measured.
struct MicrobenchmarkScore {
  std::string what;  // "A100-SXM4-80GB all-reduce", "A100-SXM4-80GB all-reduce, infiniband"
  ErrorScore time;
};
std::vector<MicrobenchmarkScore> scores_of(const Microbenchmarks& measured, const Presets& presets);
std::string to_text(std::span<const MicrobenchmarkScore> scores);
Json to_json(std::span<const MicrobenchmarkScore> scores);

// {"sources": [{"source", "rows", "skipped": [...], "mape_pct", "median_pct", "worst_pct", "bias_pct", ...,
// "predictions": [a line per row]}]}; docs/validation.md has all fields.
Json to_json(std::span<const SourceScore> scores);

}  // namespace stagecraft
