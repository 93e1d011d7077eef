// The calibrated constants by name: their ranges, their files, and the presets that hold them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/cost/machine.hpp"
#include "models/json_reader.hpp"
#include "models/layout.hpp"

namespace stagecraft {

template <class Constants>
struct NamedConstant {
  std::string_view name;  // in files; ends in _s for seconds, _bytes for bytes
  double Constants::*member;
  double least, most;  // what a file may say, and what a fit tries
};
template <class Constants>
std::span<const NamedConstant<Constants>> constant_table();
template <>
std::span<const NamedConstant<DeviceConstants>> constant_table();
template <>
std::span<const NamedConstant<FabricConstants>> constant_table();
template <>
std::span<const NamedConstant<FrameworkConstants>> constant_table();

// A file of models/presets/devices: the device as sold, with its node, and how it behaves.
struct DevicePreset {
  DeviceType type;
  std::vector<std::string> aliases;  // beginnings of the names that publications give it
  double devices_a_node = 8;         // on the innermost level of the network
  DeviceConstants constants;
  std::vector<std::string> fitted;  // constants that calibration may change; the others stand as given
  std::string source;
  PublishedErrors published;
};
// Of models/presets/fabrics.
struct FabricPreset {
  std::string name;
  std::vector<std::string> aliases;  // parts of descriptions
  FabricConstants constants;
  std::vector<std::string> fitted;  // constants that calibration may change; the others stand as given
  std::string source;
};
// What layouts a framework trains with: what is in none of these lists it has not.
struct Abilities {
  std::string framework;  // whose
  std::vector<PipelineSchedule> schedules;
  std::vector<int> zero, zero_with_pipelines, zero_with_tensor;  // stages: alone, beside other parallelism
  std::vector<int> offload_optimizer;  // ZeRO stages with which the optimizer may be in host memory
  bool offload_activations = false;
  bool context = false, experts = false;  // parallel
  bool folded_experts = false;            // experts over tensor-parallel devices, too (folds_experts)
  std::vector<Recompute> recompute;
  std::vector<DimensionOrder> orders;
};

// Of models/presets/frameworks.
struct FrameworkPreset {
  std::string name;
  std::vector<std::string> aliases;   // beginnings of names
  std::vector<std::string> overlaps;  // "gradients", "parameters", "tensor", "pipeline": what it does where it can
  bool fused_attention = true;
  bool unfused_norm = false;      // norms of several kernels, unless a publication says otherwise
  bool balances_head = false;     // gives the last stage fewer blocks, by the size of the head
  bool dropout = false;           // in the recipes of its GELU networks
  std::int64_t vocabulary = 0;    // where a publication names none; 0: unknown
  std::optional<Abilities> runs;  // empty: not known
  FrameworkConstants constants;
  std::vector<std::string> fitted;  // constants that calibration may change; the others stand as given
  std::string source;
};

// All files of the folder, by name. Throws bad_input naming the file and field.
struct Presets {
  std::vector<DevicePreset> devices;
  std::vector<FabricPreset> fabrics;
  std::vector<FrameworkPreset> frameworks;
};
Presets load_calibration();
DevicePreset device_preset_from_json(const JsonValue& value);
FabricPreset fabric_preset_from_json(const JsonValue& value);
FrameworkPreset framework_preset_from_json(const JsonValue& value);
Json to_json(const DevicePreset& preset);
Json to_json(const PublishedErrors& published);  // what there is
Json to_json(const FabricPreset& preset);
Json to_json(const FrameworkPreset& preset);

}  // namespace stagecraft
