// A published measurement of a training step, as the step model understands it.
//
// One row of a table in the format of validation/README.md: network, machine, layout and what was measured. What the
// row does not say comes from the presets of its framework; what neither says makes the row incomplete.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "calibration/csv.hpp"
#include "models/cost/constants.hpp"
#include "models/cost/step_model.hpp"

namespace stagecraft {

enum class RunStatus { ok, out_of_memory, failed };

// Which of a device's bytes a publication counts.
enum class MemoryKind { allocated, whole_device };

struct Measurement {
  std::string id;
  std::string model, framework, device, fabric;  // as the row names the first, as the presets name the others
  RunStatus status = RunStatus::ok;
  std::optional<double> time_s;
  std::optional<double> memory_bytes;
  MemoryKind memory_kind = MemoryKind::allocated;
  std::optional<double> mfu;  // as published, 0 .. 1
  TrainingJob job;
  ParallelLayout layout;
  Machine machine;
  double devices_a_node = 8;          // on the innermost level
  double nominal_rate = 0;            // bytes/s a device between nodes, as sold; 0: the fabric preset's
  bool gradients_in_16_bits = false;  // the row says so, whatever the framework usually does
};

// Puts the constants of the presets that the measurement names into its machine.
// REQUIRES: presets of those names.
void set_machine(const Presets& presets, Measurement& measurement);

struct SkippedRow {
  std::string id;
  std::string reason;
};

// A table's rows in its order.
struct MeasurementTable {
  std::string source;  // the file's name without ".csv"
  std::vector<Measurement> measurements;
  std::vector<SkippedRow> skipped;
};

// Throws bad_input naming file and missing columns when the table is none of training steps; a row that is incomplete
// or impossible is skipped with the reason.
MeasurementTable read_measurements(const CsvTable& table, const Presets& presets);

// Whether the table is one of training steps; others (of kernels, collectives, hardware) serve calibration.
bool is_of_training_steps(const CsvTable& table);

// The preset that a publication's name means: the longest alias that it begins with (devices, frameworks) or holds
// (fabrics). Null when none does.
const DevicePreset* find_device(const Presets& presets, std::string_view name);
const FrameworkPreset* find_framework(const Presets& presets, std::string_view name);
const FabricPreset* find_fabric(const Presets& presets, std::string_view description);

// Bytes a second of all ports of a node together, nominal, from a text such as "8x HDR IB 200Gb/s per node",
// "400Gb/s per GPU"; empty when it says no rate.
std::optional<double> node_rate(std::string_view description, double devices_a_node);

}  // namespace stagecraft
