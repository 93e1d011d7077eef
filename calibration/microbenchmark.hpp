// Published times of single kernels and collectives, and what the machine model says to them.
#pragma once

#include <string>
#include <vector>

#include "calibration/csv.hpp"
#include "calibration/measurement.hpp"

namespace stagecraft {

// Matrix products and fused attention: achieved over peak rate, by shape.
struct KernelMeasurement {
  enum class Kind { product, attention_forward, attention_backward };
  std::string id;
  std::string device;
  Kind kind = Kind::product;
  double m = 0, n = 0, k = 0;  // of each product
  double count = 1;            // products in one kernel
  double rows = 0;             // of an attention's queries, all heads
  double efficiency = 0;
};

struct CollectiveMeasurement {
  enum class Kind { all_reduce, all_gather, reduce_scatter };
  std::string id;
  std::string device, fabric;  // fabric empty: within a node
  Kind kind = Kind::all_reduce;
  double devices = 0, nodes = 1;
  double nominal_rate = 0;  // bytes/s a device between nodes; 0: the fabric preset's
  double bytes = 0;         // of the whole vector
  double time_s = 0;
};

struct Microbenchmarks {
  std::vector<KernelMeasurement> kernels;
  std::vector<CollectiveMeasurement> collectives;
  std::vector<SkippedRow> skipped;
};

// Reads tables of kernels ("op", "efficiency") or collectives ("collective", "size_bytes"); empty for others.
Microbenchmarks read_microbenchmarks(const CsvTable& table, const Presets& presets);

// Predicted over measured. REQUIRES: presets of the names in the measurement.
double ratio(const KernelMeasurement& measurement, const Presets& presets);
double ratio(const CollectiveMeasurement& measurement, const Presets& presets);

}  // namespace stagecraft
