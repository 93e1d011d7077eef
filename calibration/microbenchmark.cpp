#include "calibration/microbenchmark.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace stagecraft {
namespace {

constexpr std::string_view unknown_fabric = "unknown";

double number(const CsvTable& table, const CsvRow& row, std::string_view column) {
  return std::strtod(table.at(row, column).c_str(), nullptr);
}

const DevicePreset& device_named(const Presets& presets, const std::string& name) {
  return *std::find_if(presets.devices.begin(), presets.devices.end(),
                       [&](const DevicePreset& p) { return p.type.name == name; });
}

bool positive(std::initializer_list<double> values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value) && value > 0; });
}

std::optional<KernelMeasurement> kernel_of(const CsvTable& table, const CsvRow& row, const DevicePreset& device) {
  KernelMeasurement kernel{.id = table.at(row, "id"), .device = device.type.name};
  kernel.efficiency = number(table, row, "efficiency");
  const std::string& op = table.at(row, "op");
  if (op == "sdp_fwd" || op == "sdp_bwd") {
    kernel.kind =
        op == "sdp_fwd" ? KernelMeasurement::Kind::attention_forward : KernelMeasurement::Kind::attention_backward;
    kernel.rows = number(table, row, "batch") * number(table, row, "head_num") * number(table, row, "seq_len");
    return positive({kernel.efficiency, kernel.rows}) ? std::optional(kernel) : std::nullopt;
  }
  kernel.m = number(table, row, "m");
  kernel.n = number(table, row, "n");
  kernel.k = number(table, row, "k");
  if (op == "group_matmul") kernel.count = number(table, row, "n_groups");
  if ((op != "matmul" && op != "group_matmul") ||
      !positive({kernel.efficiency, kernel.m, kernel.n, kernel.k, kernel.count})) {
    return std::nullopt;
  }
  return kernel;
}

std::optional<CollectiveMeasurement> collective_of(const CsvTable& table, const CsvRow& row, const Presets& presets,
                                                   const DevicePreset& device) {
  CollectiveMeasurement c{.id = table.at(row, "id"), .device = device.type.name};
  const std::string& kind = table.at(row, "collective");
  if (kind == "all_gather") c.kind = CollectiveMeasurement::Kind::all_gather;
  if (kind == "reduce_scatter") c.kind = CollectiveMeasurement::Kind::reduce_scatter;
  c.devices = number(table, row, "n_gpus");
  c.nodes = number(table, row, "n_nodes");
  c.bytes = number(table, row, "size_bytes");
  c.time_s = number(table, row, "time_us_out_of_place") * 1e-6;
  if (const double bus = number(table, row, "busbw_GBps_out_of_place"); c.time_s == 0 && bus > 0) {
    const double rounds = c.kind == CollectiveMeasurement::Kind::all_reduce ? 2 : 1;
    c.time_s = rounds * (c.devices - 1) / c.devices * c.bytes / (bus * 1e9);
  }
  if (!positive({c.devices, c.nodes, c.bytes, c.time_s})) return std::nullopt;
  if (c.nodes == 1) return c;
  const std::string& link = table.at(row, "inter_node_link");
  const FabricPreset* fabric = find_fabric(presets, link);
  if (fabric == nullptr) return std::nullopt;
  c.fabric = fabric->name;
  const double in_node = c.devices / c.nodes;
  c.nominal_rate = node_rate(link, in_node).value_or(0) / in_node;
  if (fabric->name == unknown_fabric) return std::nullopt;
  return c;
}

}  // namespace

Microbenchmarks read_microbenchmarks(const CsvTable& table, const Presets& presets) {
  Microbenchmarks result;
  const bool kernels = table.find("op") && table.find("efficiency");
  const bool collectives = table.find("collective") && table.find("size_bytes");
  if (!kernels && !collectives) return result;
  for (const CsvRow& row : table.rows()) {
    const DevicePreset* device = find_device(presets, table.at(row, "gpu"));
    if (device == nullptr) {
      result.skipped.push_back({table.at(row, "id"), "gpu '" + table.at(row, "gpu") + "' has no preset"});
    } else if (const auto kernel = kernels ? kernel_of(table, row, *device) : std::nullopt) {
      result.kernels.push_back(*kernel);
    } else if (const auto c = collectives ? collective_of(table, row, presets, *device) : std::nullopt) {
      result.collectives.push_back(*c);
    } else {
      result.skipped.push_back({table.at(row, "id"), "a size or a time is missing"});
    }
  }
  return result;
}

double ratio(const KernelMeasurement& kernel, const Presets& presets) {
  const DevicePreset& device = device_named(presets, kernel.device);
  if (kernel.kind != KernelMeasurement::Kind::product) {
    const bool forward = kernel.kind == KernelMeasurement::Kind::attention_forward;
    return kernel.efficiency / (forward ? attention_forward_rate(device.constants, kernel.rows)
                                        : attention_backward_rate(device.constants, kernel.rows));
  }
  Machine machine;
  machine.device = device.type;
  machine.constants = device.constants;
  const double peak = device.type.peak_of(DataType::bf16).value();
  const double measured = 2 * kernel.m * kernel.n * kernel.k / (peak * kernel.efficiency);
  return matmul_time(machine, peak, kernel.m, kernel.n, kernel.k, 2) / measured;
}

double ratio(const CollectiveMeasurement& c, const Presets& presets) {
  const DeviceConstants& d = device_named(presets, c.device).constants;
  Machine machine;
  machine.levels.push_back(node_level(d, c.devices / c.nodes, d.local_bandwidth));
  if (c.nodes > 1) {
    const auto fabric = std::find_if(presets.fabrics.begin(), presets.fabrics.end(),
                                     [&](const FabricPreset& p) { return p.name == c.fabric; });
    const FabricConstants& f = fabric->constants;
    machine.levels.push_back(
        network_level(f, c.devices, (c.nominal_rate > 0 ? c.nominal_rate : f.rate) * f.efficiency));
  }
  const GroupShape group{c.devices, c.devices / c.nodes, 1};
  const double time = c.kind == CollectiveMeasurement::Kind::all_reduce ? all_reduce_time(machine, group, c.bytes)
                                                                        : all_gather_time(machine, group, c.bytes);
  return time / c.time_s;
}

}  // namespace stagecraft
