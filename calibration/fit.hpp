// Fits the constants of the presets to published step times and memory.
//
// Minimises, over the constants that each preset lists as fitted, the sum over the sources of the mean absolute
// logarithm of predicted over measured time, the same of memory, and a penalty for each wrong out-of-memory label (rows
// off by more than a factor count as that factor). A scan of each constant's range, then a coordinate search with
// shrinking steps: derivative-free, and each constant re-evaluates only the rows that know it. It begins with every
// fitted constant at its default, whatever the presets say, and again from elsewhere, several times: what it ends with
// depends on the measurements alone.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "calibration/measurement.hpp"
#include "calibration/microbenchmark.hpp"

namespace stagecraft {

struct FitOptions {
  int leaps = 12;           // further searches from elsewhere, of each preset
  int rounds = 40;          // over all constants
  double first_step = 0.3;  // relative
  double last_step = 0.003;
  double first_factor = 20;                                       // of a row's error, in the first of two passes
  double largest_factor = 1.6;                                    // in the second
  std::function<void(int done, int all, double least)> progress;  // after each leap, if set
};

// Which of the rows take part, by table and position.
using RowFilter = std::function<bool(std::size_t table, std::size_t row)>;

struct FitResult {
  Presets presets;
  double before = 0;  // the objective with the presets as they are given
  double after = 0;
  std::int64_t evaluations = 0;
};

// REQUIRES: tables read with `presets`.
// Kernels and collectives of each device count as a source each.
FitResult fit(std::span<const MeasurementTable> tables, const Microbenchmarks& microbenchmarks, const Presets& presets,
              const RowFilter& takes_part, const FitOptions& options = {});

}  // namespace stagecraft
