#include "calibration/measurement.hpp"

#include <algorithm>
#include <cassert>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "models/network/network.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr std::string_view needed_columns[] = {
    "id", "layers", "hidden", "heads",     "ffn_hidden",  "vocab",        "seq_len", "gpu",      "n_gpus",
    "tp", "pp",     "dp",     "framework", "micro_batch", "global_batch", "dtype",   "recompute"};

// Why a row cannot be predicted; caught where the row is read.
struct Incomplete {
  std::string reason;
};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// The number that the text begins with ("250k" is 250000), whatever follows a blank; empty when it begins with none.
std::optional<double> leading_number(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number)) return std::nullopt;
  std::string_view rest = text.substr(static_cast<std::size_t>(end - text.data()));
  if (rest.starts_with('k')) number *= 1000, rest.remove_prefix(1);
  if (!rest.empty() && rest.front() != ' ') return std::nullopt;
  return number;
}

class Row {
 public:
  Row(const CsvTable& table, const CsvRow& row) : table_(table), row_(row) {}

  const std::string& text(std::string_view column) const { return table_.at(row_, column); }

  std::optional<double> number(std::string_view column) const {
    const std::string& value = text(column);
    if (value.empty()) return std::nullopt;
    const auto parsed = leading_number(value);
    if (!parsed || *parsed < 0) throw Incomplete{fmt::format("{}: '{}' is not one number", column, printable(value))};
    return parsed;
  }

  // Alone in its cell: "6 or 12" is none.
  std::int64_t count(std::string_view column, std::optional<std::int64_t> otherwise = std::nullopt) const {
    const auto value = number(column);
    if (!value) {
      if (otherwise) return *otherwise;
      throw Incomplete{fmt::format("{} is not published", column)};
    }
    if (*value < 1 || *value > 1e9 || *value != std::floor(*value) || contains(text(column), " or ")) {
      throw Incomplete{fmt::format("{}: '{}' is not one number", column, printable(text(column)))};
    }
    return static_cast<std::int64_t>(*value);
  }

 private:
  const CsvTable& table_;
  const CsvRow& row_;
};

// The preset of networks that the model's name begins with, whatever the case: the longest.
std::optional<Transformer> preset_of(const std::string& model) {
  std::string longest;
  for (const std::string& name : network_presets()) {
    if (lower(model).starts_with(name) && name.size() > longest.size()) longest = name;
  }
  return longest.empty() ? std::nullopt : load_network(longest).transformer;
}

// Latent attention's sizes are not in the row: those, shared experts and leading dense blocks are the published
// model's, of which the row may have fewer blocks ("dense_layers=1" in its notes: and fewer dense ones).
Transformer latent_network_of(const Row& row) {
  const std::optional<Transformer> preset = preset_of(row.text("model"));
  if (!preset || !preset->latent) {
    throw Incomplete{
        "multi-head latent attention: the ranks of its projections are not in the row, and no preset is of its model"};
  }
  Transformer t = *preset;
  for (const auto& [column, size] : {std::pair("hidden", t.hidden), std::pair("heads", t.heads),
                                     std::pair("ffn_hidden", t.dense_ffn), std::pair("n_experts", t.experts),
                                     std::pair("moe_topk", t.experts_per_token), std::pair("moe_ffn_hidden", t.ffn)}) {
    if (row.count(column) != size) {
      throw Incomplete{
          fmt::format("{}: '{}' is not {}, that of the model's preset", column, printable(row.text(column)), size)};
    }
  }
  t.layers = row.count("layers");
  constexpr std::string_view said = "dense_layers=";
  const std::string& notes = row.text("notes");
  if (const auto at = notes.find(said); at != std::string::npos) {
    const auto layers = leading_number(std::string_view(notes).substr(at + said.size()));
    if (!layers || *layers != std::floor(*layers)) throw Incomplete{"notes: 'dense_layers=' without a number"};
    t.dense_layers = static_cast<std::int64_t>(*layers);
  }
  if (t.dense_layers < 0 || t.dense_layers >= t.layers) throw Incomplete{"no block with experts"};
  t.vocabulary = row.count("vocab", t.vocabulary);
  t.max_sequence = row.count("seq_len");
  t.tied_head = row.text("tied_embeddings") == "1";
  return t;
}

Transformer network_of(const Row& row, const FrameworkPreset& framework) {
  if (contains(row.text("kv_heads"), "MLA")) return latent_network_of(row);
  Transformer t;
  const std::string mlp = lower(row.text("mlp"));
  const bool gated = contains(mlp, "swiglu") || contains(mlp, "gated");
  t.family = gated ? "llama" : "gpt2";
  t.activation = gated ? ActivationKind::swiglu : ActivationKind::gelu;
  t.norm = gated ? NormKind::rms_norm : NormKind::layer_norm;
  t.position = gated ? PositionKind::rotary : PositionKind::learned;
  t.qkv_bias = t.linear_bias = mlp == "gelu";
  t.dropout = framework.dropout && mlp == "gelu";
  t.layers = row.count("layers");
  t.hidden = row.count("hidden");
  t.heads = row.count("heads");
  t.kv_heads = row.count("kv_heads", row.text("kv_heads").empty() && row.text("status") == "ok"
                                         ? std::optional<std::int64_t>(t.heads)
                                         : std::nullopt);
  // A row does not say how long its heads are; of most models they fill the hidden size.
  const std::optional<Transformer> preset = preset_of(row.text("model"));
  if (preset && preset->hidden == t.hidden && preset->heads == t.heads) {
    t.head_size = preset->head_size;
  } else if (t.hidden % t.heads == 0) {
    t.head_size = t.hidden / t.heads;
  } else {
    throw Incomplete{"heads do not divide the hidden size"};
  }
  if (t.heads % t.kv_heads != 0) throw Incomplete{"kv_heads do not divide the heads"};
  t.ffn = row.count("ffn_hidden");
  if (row.text("vocab").empty() && framework.vocabulary == 0) throw Incomplete{"vocab is not published"};
  t.vocabulary = row.count("vocab", framework.vocabulary);
  t.max_sequence = row.count("seq_len");
  t.tied_head = row.text("tied_embeddings").empty() ? !gated : row.text("tied_embeddings") == "1";
  if (const auto experts = row.number("n_experts")) {
    t.experts = static_cast<std::int64_t>(*experts);
    t.experts_per_token = row.count("moe_topk");
    t.ffn = row.count("moe_ffn_hidden");
  }
  return t;
}

DataType precision_of(const std::string& text) {
  const std::string kind = lower(text);
  if (contains(kind, "fp8")) return DataType::fp8;
  if (contains(kind, "fp4")) throw Incomplete{"4-bit floating point is not modelled"};
  if (kind.starts_with("bf16") || contains(kind, "amp_bf16")) return DataType::bf16;
  if (kind.starts_with("fp16")) return DataType::fp16;
  if (kind.starts_with("fp32")) return DataType::fp32;
  throw Incomplete{fmt::format("dtype: '{}' is no precision that is known", printable(text))};
}

Recompute recompute_of(const std::string& text) {
  if (text.starts_with("full")) return Recompute::full;
  if (text.starts_with("selective")) return Recompute::selective;
  return Recompute::none;  // also where it is not stated
}

std::uint8_t zero_of(const std::string& text) {
  if (const auto at = text.find("zero"); at != std::string::npos && at + 4 < text.size()) {
    const char digit = text[at + 4];
    if (digit >= '0' && digit <= '3') return static_cast<std::uint8_t>(digit - '0');
  }
  return contains(text, "fsdp") ? 3 : 0;
}

PipelineSchedule schedule_of(const std::string& text, std::int32_t virtual_stages) {
  if (text.empty() || text == "none") return PipelineSchedule::one_f_one_b;
  if (text.starts_with("ZB-1p")) return PipelineSchedule::zb_1p;
  if (text.starts_with("ZB-2p")) return PipelineSchedule::zb_2p;
  if (text.starts_with("ZB-V")) return PipelineSchedule::zb_v;
  if (text.starts_with("ZB-H1")) return PipelineSchedule::zb_h1;
  if (text.starts_with("ZB-H2")) return PipelineSchedule::zb_h2;
  if (text.starts_with("GPipe")) return PipelineSchedule::gpipe;
  if (text.starts_with("1F1B") || text.starts_with("Interleaved")) {
    return virtual_stages > 1 ? PipelineSchedule::interleaved_one_f_one_b : PipelineSchedule::one_f_one_b;
  }
  throw Incomplete{fmt::format("schedule: '{}' is not known", printable(text))};
}

std::int32_t virtual_stages_of(const Row& row, std::int64_t layers, std::int64_t ranks) {
  if (row.text("vpp") == "one layer per chunk") return static_cast<std::int32_t>((layers + ranks - 1) / ranks);
  if (row.text("schedule").starts_with("ZB-V")) return 2;
  return static_cast<std::int32_t>(row.count("vpp"));
}

// Blocks of the last stage when ranks are filled in turn until each has its share, the head counting as so many blocks
// as its product is long: those left when the last share that ends among the blocks is full.
std::int32_t last_stage_beside_head(const Transformer& t, std::int32_t pipeline) {
  const auto heads = static_cast<double>(2 * t.heads + 2 * t.kv_heads) * static_cast<double>(t.head_size);
  const double gates = t.activation == ActivationKind::swiglu ? 3 : 2;
  const double head = static_cast<double>(t.vocabulary) / (heads + gates * static_cast<double>(t.ffn));
  const auto layers = static_cast<double>(t.layers);
  const double share = (layers + head) / pipeline;
  const double full = std::min(pipeline - 1.0, std::floor(layers / share));
  const auto left = static_cast<std::int32_t>(layers - std::ceil(full * share));
  return left > 0 ? left : no_layers;
}

ParallelLayout layout_of(const Row& row, const Transformer& network, const FrameworkPreset& framework) {
  ParallelLayout layout;
  const auto size = [&](std::string_view column) { return static_cast<std::int32_t>(row.count(column, 1)); };
  layout.pipeline = size("pp");
  layout.tensor = size("tp");
  layout.data = size("dp");
  layout.context = size("cp");
  layout.expert = size("ep");
  layout.virtual_stages = virtual_stages_of(row, network.layers, layout.pipeline);
  layout.microbatch = static_cast<std::int32_t>(row.count("micro_batch"));
  const std::int64_t each = std::int64_t{layout.data} * layout.microbatch;
  const std::int64_t global = row.count("global_batch");
  if (global % each != 0) throw Incomplete{"the global batch is no multiple of data x micro-batch"};
  layout.microbatches = static_cast<std::int32_t>(global / each);
  layout.schedule = schedule_of(row.text("schedule"), layout.virtual_stages);
  if (framework.balances_head && layout.pipeline > 1) {
    layout.last_stage_layers = last_stage_beside_head(network, layout.pipeline);
  }
  layout.recompute = recompute_of(row.text("recompute"));
  layout.zero = zero_of(lower(row.text("dp_sharding")));
  const std::string& sharded = row.text("seq_parallel");
  layout.sequence_parallel = layout.tensor > 1 && (sharded == "1" || sharded == "1 if TP>1");
  for (const std::string& overlap : framework.overlaps) {
    if (overlap == "gradients") layout.overlap_gradients = true;
    if (overlap == "unsharded-gradients") layout.overlap_gradients = layout.zero == 0;
    if (overlap == "parameters") layout.overlap_parameters = true;
    if (overlap == "tensor") layout.overlap_tensor = layout.sequence_parallel;
    if (overlap == "pipeline") layout.overlap_pipeline = true;
    if (overlap == "interleaved-pipeline") layout.overlap_pipeline = layout.virtual_stages > 1;
  }
  return layout;
}

void read_results(const Row& row, Measurement& m) {
  const std::string& status = row.text("status");
  m.status = status == "oom"                ? RunStatus::out_of_memory
             : status.starts_with("failed") ? RunStatus::failed
                                            : RunStatus::ok;
  m.time_s = row.number("iter_time_s");
  if (!m.time_s) m.time_s = row.number("derived_iter_time_s");
  if (m.time_s && *m.time_s == 0) throw Incomplete{"a step time of zero"};
  if (const auto mfu = row.number("mfu_pct")) m.mfu = *mfu / 100;
  if (const auto memory = row.number("peak_mem_gb")) {
    const std::string kind = lower(row.text("mem_kind"));
    m.memory_bytes = *memory * gib;  // what tools print as GB is 2^30 bytes
    m.memory_kind = contains(kind, "nvidia-smi") ? MemoryKind::whole_device : MemoryKind::allocated;
  }
  if (m.status == RunStatus::ok && !m.time_s && !m.memory_bytes)
    throw Incomplete{"neither time nor memory is published"};
}

void read_network(const Row& row, const Presets& presets, const DevicePreset& device, Measurement& m) {
  const auto in_node = static_cast<double>(row.count("gpus_per_node", 8));
  m.devices_a_node = std::max(device.devices_a_node, in_node);
  m.gradients_in_16_bits = contains(row.text("dtype"), "16-bit");
  if (static_cast<double>(row.count("n_gpus")) <= m.devices_a_node) return;
  const FabricPreset* fabric = find_fabric(presets, row.text("inter_node_link"));
  if (fabric == nullptr) throw Incomplete{"inter_node_link is not published"};
  m.fabric = fabric->name;
  m.nominal_rate = node_rate(row.text("inter_node_link"), in_node).value_or(0) / in_node;
}

Measurement measurement_of(const Row& row, const Presets& presets) {
  const DevicePreset* device = find_device(presets, row.text("gpu"));
  if (device == nullptr) throw Incomplete{fmt::format("gpu '{}' has no preset", printable(row.text("gpu")))};
  const FrameworkPreset* framework = find_framework(presets, row.text("framework"));
  if (framework == nullptr) throw Incomplete{fmt::format("framework '{}' has no preset", row.text("framework"))};
  Measurement m;
  m.id = row.text("id");
  m.model = row.text("model");
  m.framework = framework->name;
  m.device = device->type.name;
  m.job.network = network_of(row, *framework);
  m.job.global_batch = row.count("global_batch");
  m.job.sequence = row.count("seq_len");
  m.job.precision = precision_of(row.text("dtype"));
  const std::string& recompute = row.text("recompute");
  m.job.fused_attention = framework->fused_attention;
  if (contains(recompute, "attention=")) m.job.fused_attention = contains(recompute, "attention=flash");
  m.job.first_flash = contains(recompute, "attention=flash_attentionv1");
  m.job.eager_scores = contains(recompute, "attention=torch");
  m.job.fused_norm = !framework->unfused_norm || contains(recompute, "RMS kernel");
  m.layout = layout_of(row, m.job.network, *framework);
  read_network(row, presets, *device, m);
  set_machine(presets, m);
  if (m.layout.devices() != row.count("n_gpus")) throw Incomplete{"the parallel sizes do not multiply to n_gpus"};
  if (const std::string refusal = StepModel(m.job, m.machine).refuse(m.layout); !refusal.empty()) {
    throw Incomplete{refusal};
  }
  read_results(row, m);
  return m;
}

template <class Preset, class Name>
const Preset& named(const std::vector<Preset>& presets, Name name) {
  const auto found = std::find_if(presets.begin(), presets.end(), name);
  assert(found != presets.end());
  return *found;
}

template <class Preset, class Matches>
const Preset* find_preset(const std::vector<Preset>& presets, Matches matches) {
  const Preset* found = nullptr;
  std::size_t longest = 0;
  for (const Preset& preset : presets) {
    for (const std::string& alias : preset.aliases) {
      if (alias.size() < longest || (found != nullptr && alias.size() == longest) || !matches(alias)) continue;
      found = &preset;
      longest = alias.size();
    }
  }
  return found;
}

}  // namespace

void set_machine(const Presets& presets, Measurement& m) {
  const DevicePreset& device = named(presets.devices, [&](const DevicePreset& p) { return p.type.name == m.device; });
  const FrameworkPreset& framework =
      named(presets.frameworks, [&](const FrameworkPreset& p) { return p.name == m.framework; });
  const DeviceConstants& d = device.constants;
  m.machine = {device.type, d, framework.constants, {}};
  if (m.gradients_in_16_bits) m.machine.framework.gradient_bytes = m.machine.framework.reduced_bytes = 2;
  m.machine.levels.push_back(node_level(d, m.devices_a_node, d.local_bandwidth));
  if (m.fabric.empty()) return;
  const FabricConstants& f =
      named(presets.fabrics, [&](const FabricPreset& p) { return p.name == m.fabric; }).constants;
  m.machine.levels.push_back(network_level(f, static_cast<double>(m.layout.devices()),
                                           (m.nominal_rate > 0 ? m.nominal_rate : f.rate) * f.efficiency));
}

const DevicePreset* find_device(const Presets& presets, std::string_view name) {
  return find_preset(presets.devices, [&](std::string_view alias) { return name.starts_with(alias); });
}

const FrameworkPreset* find_framework(const Presets& presets, std::string_view name) {
  return find_preset(presets.frameworks, [&](std::string_view alias) { return name.starts_with(alias); });
}

const FabricPreset* find_fabric(const Presets& presets, std::string_view description) {
  return find_preset(presets.fabrics, [&](std::string_view alias) { return contains(description, alias); });
}

std::optional<double> node_rate(std::string_view description, double devices_a_node) {
  const auto unit = description.find("Gb/s");
  if (unit == std::string_view::npos) return std::nullopt;
  std::size_t start = unit;
  while (start > 0 && description[start - 1] == ' ') --start;
  const std::size_t end = start;
  while (start > 0 && std::isdigit(static_cast<unsigned char>(description[start - 1])) != 0) --start;
  double gigabits = 0;
  if (std::from_chars(description.data() + start, description.data() + end, gigabits).ec != std::errc()) {
    return std::nullopt;
  }
  double ports = contains(description, "per GPU") ? devices_a_node : 1;
  double multiple = 0;
  const auto [rest, error] = std::from_chars(description.data(), description.data() + description.size(), multiple);
  if (error == std::errc() && rest != description.data() + description.size() && *rest == 'x') ports = multiple;
  return ports * gigabits * 1e9 / 8;
}

bool is_of_training_steps(const CsvTable& table) {
  return table.find("iter_time_s") && table.find("framework") && table.find("tp");
}

MeasurementTable read_measurements(const CsvTable& table, const Presets& presets) {
  std::vector<std::string> missing;
  for (const std::string_view column : needed_columns) {
    if (!table.find(column)) missing.emplace_back(column);
  }
  if (!missing.empty()) throw bad_input("{}: the columns {} are missing", table.file(), join(missing));
  MeasurementTable result;
  result.source = std::filesystem::path(table.file()).stem().string();
  for (const CsvRow& cells : table.rows()) {
    const Row row(table, cells);
    try {
      result.measurements.push_back(measurement_of(row, presets));
    } catch (const Incomplete& incomplete) {
      result.skipped.push_back({row.text("id"), incomplete.reason});
    }
  }
  return result;
}

}  // namespace stagecraft
