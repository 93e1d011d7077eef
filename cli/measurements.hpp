// Loads the tables that `validate` and `calibrate` are given.
#pragma once

#include <string>
#include <vector>

#include "calibration/measurement.hpp"
#include "calibration/microbenchmark.hpp"

namespace stagecraft {

struct PublishedTables {
  std::vector<MeasurementTable> steps;
  Microbenchmarks microbenchmarks;
};

// The files, and of folders the .csv files in them, sorted. A file that was named must be of training steps, kernels or
// collectives; in folders others are passed over. Throws bad_input.
PublishedTables load_tables(const std::vector<std::string>& paths, const Presets& presets);

}  // namespace stagecraft
