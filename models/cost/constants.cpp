#include "models/cost/constants.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/presets.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

using D = DeviceConstants;
constexpr NamedConstant<D> device_table[] = {{"matmul", &D::matmul, 0.05, 1},
                                             {"matmul_depth", &D::matmul_depth, 0, 5000},
                                             {"matmul_tile", &D::matmul_tile, 16, 512},
                                             {"matmul_waves", &D::matmul_waves, 0, 1},
                                             {"multiprocessors", &D::multiprocessors, 1, 1000},
                                             {"attention_forward", &D::attention_forward, 0.01, 2},
                                             {"attention_backward", &D::attention_backward, 0.01, 2},
                                             {"attention_forward_rows", &D::attention_forward_rows, 0, 1e6},
                                             {"attention_backward_rows", &D::attention_backward_rows, 0, 1e6},
                                             {"attention_unfused", &D::attention_unfused, 0.01, 1},
                                             {"memory", &D::memory, 0.05, 1},
                                             {"kernel_s", &D::kernel_s, 0, 1e-4},
                                             {"fp8_speedup", &D::fp8_speedup, 1, 2},
                                             {"host_bandwidth", &D::host_bandwidth, 1e8, 1e12},
                                             {"host_memory", &D::host_memory, 1e8, 1e13},
                                             {"local_bandwidth", &D::local_bandwidth, 1e8, 2e12},
                                             {"local_latency_s", &D::local_latency_s, 0, 1e-3},
                                             {"local_start_s", &D::local_start_s, 0, 1e-3}};
using N = FabricConstants;
constexpr NamedConstant<N> fabric_table[] = {
    {"efficiency", &N::efficiency, 0.05, 1}, {"rate", &N::rate, 1e7, 2e12},
    {"latency_s", &N::latency_s, 0, 1e-3},   {"tree_latency_s", &N::tree_latency_s, 0, 1e-2},
    {"tree_nodes", &N::tree_nodes, 1, 1e6},  {"wide_latency_s", &N::wide_latency_s, 0, 1e-2},
    {"start_s", &N::start_s, 0, 1e-2},       {"narrowing", &N::narrowing, 0, 1}};
using F = FrameworkConstants;
constexpr NamedConstant<F> framework_table[] = {{"dispatch_forward_s", &F::dispatch_forward_s, 0, 1e-2},
                                                {"dispatch_backward_s", &F::dispatch_backward_s, 0, 1e-2},
                                                {"pipelined_dispatch_s", &F::pipelined_dispatch_s, 0, 1e-2},
                                                {"elementwise", &F::elementwise, 0, 10},
                                                {"product", &F::product, 0.5, 2},
                                                {"gradient_bytes", &F::gradient_bytes, 2, 8},
                                                {"reduced_bytes", &F::reduced_bytes, 1, 4},
                                                {"bucket_bytes", &F::bucket_bytes, 1e6, 1e12},
                                                {"pipelined_sums", &F::pipelined_sums, 0, 1},
                                                {"unfused_norm", &F::unfused_norm, 1, 50},
                                                {"first_flash", &F::first_flash, 1, 10},
                                                {"eager_scores", &F::eager_scores, 1, 50},
                                                {"exposed_gradients", &F::exposed_gradients, 0, 1},
                                                {"exposed_tensor", &F::exposed_tensor, 0, 1},
                                                {"exposed_pipeline", &F::exposed_pipeline, 0, 1},
                                                {"collective_start", &F::collective_start, 0, 1},
                                                {"repeated_gathers", &F::repeated_gathers, 0, 1},
                                                {"step_s", &F::step_s, 0, 10},
                                                {"microbatch_s", &F::microbatch_s, 0, 1},
                                                {"optimizer", &F::optimizer, 0, 10},
                                                {"straggling", &F::straggling, 0, 0.2},
                                                {"logit_bytes", &F::logit_bytes, 0, 40},
                                                {"logits_sharded", &F::logits_sharded, 0, 1},
                                                {"gated_kept", &F::gated_kept, 2, 5},
                                                {"selective_kept", &F::selective_kept, 0, 1},
                                                {"reserved_bytes", &F::reserved_bytes, 0, 2e10},
                                                {"communicator_bytes", &F::communicator_bytes, 0, 5e9},
                                                {"fragmentation", &F::fragmentation, -0.5, 1}};

template <class Constants>
Constants constants_from_json(const JsonValue& value) {
  Constants constants;
  JsonObject object = value.object();
  for (const auto& constant : constant_table<Constants>()) {
    if (const auto number = object.optional(constant.name)) {
      constants.*constant.member = number->number(constant.least, constant.most);
    }
  }
  object.finish();
  return constants;
}

template <class Constants>
Json constants_to_json(const Constants& constants) {
  Json json = Json::object();
  for (const auto& constant : constant_table<Constants>())
    json[std::string(constant.name)] = constants.*constant.member;
  return json;
}

std::vector<std::string> strings(const JsonValue& value) {
  std::vector<std::string> texts;
  for (const JsonValue& element : value.array(100)) texts.push_back(element.string());
  return texts;
}

template <class Constants>
std::vector<std::string> fitted_names(const JsonValue& value, std::span<const NamedConstant<Constants>> table) {
  for (const JsonValue& element : value.array(100)) {
    const std::string name = element.string();
    if (std::none_of(table.begin(), table.end(), [&](const auto& constant) { return constant.name == name; })) {
      throw element.expected("the name of a constant");
    }
  }
  return strings(value);
}

template <class Preset, class Read>
std::vector<Preset> load_folder(const std::string& folder, Read read) {
  std::vector<Preset> presets;
  for (const std::string& name : preset_names(folder)) {
    const auto path = presets_directory() / folder / (name + ".json");
    const Json json = read_json(path);
    presets.push_back(read(JsonValue(json, path.string())));
  }
  return presets;
}

}  // namespace

template <>
std::span<const NamedConstant<DeviceConstants>> constant_table() {
  return device_table;
}
template <>
std::span<const NamedConstant<FabricConstants>> constant_table() {
  return fabric_table;
}
template <>
std::span<const NamedConstant<FrameworkConstants>> constant_table() {
  return framework_table;
}

namespace {

PublishedErrors::Of errors_from_json(const JsonValue& value) {
  PublishedErrors::Of errors;
  JsonObject object = value.object();
  errors.rows = static_cast<int>(object.required("rows").integer(1, 1'000'000'000));
  errors.median = object.required("median_pct").number(0, 1e9);
  errors.nine_in_ten = object.required("nine_in_ten_pct").number(0, 1e9);
  object.finish();
  return errors;
}

}  // namespace

Json to_json(const PublishedErrors& published) {
  Json json = Json::object();
  for (const auto& [name, errors] : {std::pair("step_time", published.step_time), {"memory", published.memory}}) {
    if (errors.rows == 0) continue;
    json[name] = {{"rows", errors.rows}, {"median_pct", errors.median}, {"nine_in_ten_pct", errors.nine_in_ten}};
  }
  return json;
}

DevicePreset device_preset_from_json(const JsonValue& value) {
  DevicePreset preset;
  JsonObject object = value.object();
  preset.aliases = strings(object.required("aliases"));
  preset.devices_a_node = static_cast<double>(object.required("devices_a_node").integer(1, 1'000'000));
  preset.type = device_type_from_json(object.required("type"));
  preset.constants = constants_from_json<DeviceConstants>(object.required("constants"));
  preset.fitted = fitted_names(object.required("fitted"), constant_table<decltype(preset.constants)>());
  preset.source = object.required("source").string(10'000);
  if (const auto published = object.optional("published")) {
    JsonObject errors = published->object();
    if (const auto field = errors.optional("step_time")) preset.published.step_time = errors_from_json(*field);
    if (const auto field = errors.optional("memory")) preset.published.memory = errors_from_json(*field);
    errors.finish();
  }
  object.finish();
  return preset;
}

Json to_json(const DevicePreset& preset) {
  Json json = {{"aliases", preset.aliases},    {"devices_a_node", static_cast<std::int64_t>(preset.devices_a_node)},
               {"type", to_json(preset.type)}, {"constants", constants_to_json(preset.constants)},
               {"fitted", preset.fitted},      {"source", preset.source}};
  if (Json published = to_json(preset.published); !published.empty()) json["published"] = std::move(published);
  return json;
}

FabricPreset fabric_preset_from_json(const JsonValue& value) {
  FabricPreset preset;
  JsonObject object = value.object();
  preset.name = object.required("name").string();
  preset.aliases = strings(object.required("aliases"));
  preset.constants = constants_from_json<FabricConstants>(object.required("constants"));
  preset.fitted = fitted_names(object.required("fitted"), constant_table<decltype(preset.constants)>());
  preset.source = object.required("source").string(10'000);
  object.finish();
  return preset;
}

Json to_json(const FabricPreset& preset) {
  return {{"name", preset.name},
          {"aliases", preset.aliases},
          {"constants", constants_to_json(preset.constants)},
          {"fitted", preset.fitted},
          {"source", preset.source}};
}

namespace {

std::vector<int> zero_stages(const JsonValue& value) {
  std::vector<int> stages;
  for (const JsonValue& stage : value.array(4)) stages.push_back(static_cast<int>(stage.integer(0, 3)));
  return stages;
}

template <class T>
std::vector<T> each_of(const JsonValue& value, std::span<const std::pair<std::string_view, T>> names) {
  std::vector<T> all;
  for (const JsonValue& entry : value.array(100)) all.push_back(entry.one_of<T>(names));
  return all;
}

Abilities abilities_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Abilities a;
  a.schedules = each_of(object.required("schedules"), pipeline_schedule_names());
  a.zero = zero_stages(object.required("zero"));
  a.zero_with_pipelines = zero_stages(object.required("zero_with_pipelines"));
  a.zero_with_tensor = zero_stages(object.required("zero_with_tensor"));
  a.offload_optimizer = zero_stages(object.required("offload_optimizer"));
  a.offload_activations = object.required("offload_activations").boolean();
  a.context = object.required("context").boolean();
  a.experts = object.required("experts").boolean();
  a.folded_experts = object.required("folded_experts").boolean();
  a.recompute = each_of(object.required("recompute"), recompute_names());
  for (const JsonValue& order : object.required("orders").array(24)) {
    const auto parsed = parse_order(order.string());
    if (!parsed) throw order.expected("the letters t, c, d and p, innermost dimension first, such as \"tcdp\"");
    a.orders.push_back(*parsed);
  }
  object.finish();
  return a;
}

template <class T>
Json names_json(const std::vector<T>& values) {
  Json json = Json::array();
  for (const T& value : values) json.push_back(name(value));
  return json;
}

Json abilities_json(const Abilities& a) {
  Json orders = Json::array();
  for (const DimensionOrder& order : a.orders) orders.push_back(to_string(order));
  return {{"schedules", names_json(a.schedules)},
          {"zero", a.zero},
          {"zero_with_pipelines", a.zero_with_pipelines},
          {"zero_with_tensor", a.zero_with_tensor},
          {"offload_optimizer", a.offload_optimizer},
          {"offload_activations", a.offload_activations},
          {"context", a.context},
          {"experts", a.experts},
          {"folded_experts", a.folded_experts},
          {"recompute", names_json(a.recompute)},
          {"orders", orders}};
}

}  // namespace

FrameworkPreset framework_preset_from_json(const JsonValue& value) {
  FrameworkPreset preset;
  JsonObject object = value.object();
  preset.name = object.required("name").string();
  preset.aliases = strings(object.required("aliases"));
  preset.overlaps = strings(object.required("overlaps"));
  preset.fused_attention = object.required("fused_attention").boolean();
  preset.unfused_norm = object.required("unfused_norm").boolean();
  preset.balances_head = object.required("balances_head").boolean();
  preset.dropout = object.required("dropout").boolean();
  if (const auto vocabulary = object.optional("vocabulary")) preset.vocabulary = vocabulary->integer(1, 1'000'000'000);
  if (const auto runs = object.optional("runs")) {
    preset.runs = abilities_from_json(*runs);
    preset.runs->framework = preset.name;
  }
  preset.constants = constants_from_json<FrameworkConstants>(object.required("constants"));
  preset.fitted = fitted_names(object.required("fitted"), constant_table<decltype(preset.constants)>());
  preset.source = object.required("source").string(10'000);
  object.finish();
  return preset;
}

Json to_json(const FrameworkPreset& preset) {
  Json json = {{"name", preset.name},
               {"aliases", preset.aliases},
               {"overlaps", preset.overlaps},
               {"fused_attention", preset.fused_attention},
               {"unfused_norm", preset.unfused_norm},
               {"balances_head", preset.balances_head},
               {"dropout", preset.dropout}};
  if (preset.vocabulary > 0) json["vocabulary"] = preset.vocabulary;
  if (preset.runs) json["runs"] = abilities_json(*preset.runs);
  json["constants"] = constants_to_json(preset.constants);
  json["fitted"] = preset.fitted;
  json["source"] = preset.source;
  return json;
}

Presets load_calibration() {
  return {load_folder<DevicePreset>("devices", device_preset_from_json),
          load_folder<FabricPreset>("fabrics", fabric_preset_from_json),
          load_folder<FrameworkPreset>("frameworks", framework_preset_from_json)};
}

namespace {

bool is_named(const DevicePreset& preset, const std::string& name) {
  const auto is_same = [&](const std::string& alias) { return name == alias || name == "NVIDIA " + alias; };
  return preset.type.name == name || std::any_of(preset.aliases.begin(), preset.aliases.end(), is_same);
}

}  // namespace

Machine machine_of(const Cluster& cluster, std::string framework) {
  if (framework.empty()) framework = is_this_machine(cluster.name) ? "stagecraft" : "megatron-core";
  const Presets presets = load_calibration();
  const Node& node = cluster.nodes.front();
  Machine machine;
  machine.device = cluster.type_of(node.devices.front());
  const auto device = std::find_if(presets.devices.begin(), presets.devices.end(),
                                   [&](const DevicePreset& p) { return is_named(p, machine.device.name); });
  if (device != presets.devices.end()) {
    machine.constants = device->constants;
    machine.published = device->published;
    if (device->type.name != machine.device.name) {
      // What the constants are relative to, whatever clocks the driver tells.
      machine.device.peak = device->type.peak;
      machine.device.memory_bandwidth = device->type.memory_bandwidth;
    }
  } else {
    machine.constants.matmul = machine.device.efficiency.matmul;
    machine.constants.attention_forward = machine.constants.attention_backward = machine.device.efficiency.attention;
    // The roofline's share of the memory bandwidth is of other bytes than those that the step model counts.
  }
  const auto software = std::find_if(presets.frameworks.begin(), presets.frameworks.end(),
                                     [&](const FrameworkPreset& p) { return p.name == framework; });
  if (software == presets.frameworks.end()) {
    std::vector<std::string> names;
    for (const FrameworkPreset& preset : presets.frameworks) names.push_back(preset.name);
    throw bad_input("framework '{}': expected one of {}{}", printable(framework), join(names),
                    did_you_mean(framework, names));
  }
  machine.framework = software->constants;
  machine.framework_name = framework;
  const auto in_node = static_cast<double>(node.devices.size());
  machine.levels.push_back(node_level(machine.constants, in_node, node.local.bandwidth.value()));
  if (cluster.nodes.size() > 1) {
    FabricConstants constants;
    constants.latency_s = std::max(constants.latency_s, 2 * node.network.latency.value());
    const auto devices = static_cast<double>(cluster.devices.size());
    machine.levels.push_back(network_level(constants, devices, node.network.bandwidth.value() * node.nics / in_node));
    if (cluster.uplink && cluster.leaves > 1) {
      // Below one leaf's switch, and the share that its devices have of its port to the others.
      const auto nodes = std::count_if(cluster.nodes.begin(), cluster.nodes.end(),
                                       [&](const Node& other) { return other.leaf == node.leaf; });
      NetworkLevel& leaf = machine.levels.back();
      leaf.devices = static_cast<double>(nodes) * in_node;
      NetworkLevel spine = leaf;
      spine.devices = devices;
      spine.bandwidth = std::min(leaf.bandwidth, cluster.uplink->bandwidth.value() / leaf.devices);
      spine.latency += 2 * cluster.uplink->latency.value();
      machine.levels.push_back(spine);
    }
  }
  return machine;
}

namespace {

struct Fitted {
  std::string preset;
  DeviceType device;
  Link local;
};

std::optional<Fitted> fitted_for(const std::string& device) {
  for (const std::string& name : cluster_presets()) {
    if (is_this_machine(name)) continue;
    const Cluster cluster = load_cluster(name);
    for (const Node& node : cluster.nodes) {
      const DeviceType& type = cluster.type_of(node.devices.front());
      if (type.name == device) return Fitted{name, type, node.local};
    }
  }
  return std::nullopt;
}

bool is_within(double value, double of, double factor) { return value <= of * factor && of <= value * factor; }

}  // namespace

std::vector<std::string> unlike_fitted(const Cluster& cluster) {
  const Node& node = cluster.nodes.front();
  const DeviceType& device = cluster.type_of(node.devices.front());
  const Presets presets = load_calibration();
  const bool is_known = std::any_of(presets.devices.begin(), presets.devices.end(),
                                    [&](const DevicePreset& preset) { return is_named(preset, device.name); });
  const std::optional<Fitted> fitted = is_known ? fitted_for(device.name) : std::nullopt;
  if (!fitted) return {};
  std::vector<std::string> notes;
  const std::string name = printable(device.name);
  if (node.devices.size() > 1 && !is_within(node.local.bandwidth.value(), fitted->local.bandwidth.value(), 1.1)) {
    notes.push_back(fmt::format(
        "links of {} inside a node: taken as given, though the constants of '{}' were fitted with {} (cluster '{}')",
        to_string(node.local.bandwidth), name, to_string(fitted->local.bandwidth), fitted->preset));
  }
  if (node.devices.size() > 1 && !is_within(node.local.latency.value(), fitted->local.latency.value(), 2)) {
    notes.push_back(fmt::format(
        "a latency of {} inside a node: the step model does not read it, but takes the one fitted for '{}' (in cluster "
        "'{}' it is {})",
        to_string(node.local.latency), name, fitted->preset, to_string(fitted->local.latency)));
  }
  if (device.efficiency != Efficiency{} && device.efficiency != fitted->device.efficiency) {
    notes.push_back(
        fmt::format("the efficiency of '{}': the step model does not read it, but takes the fitted constants", name));
  }
  return notes;
}

}  // namespace stagecraft
