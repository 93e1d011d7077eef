#include "runtime/hugging_face_weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "models/error.hpp"
#include "models/files.hpp"
#include "models/json_reader.hpp"
#include "models/network/transformer_json.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr std::string_view gpt2_prefix = "transformer.";

// What the middle of our name is in theirs.
struct Renamed {
  std::string_view ours;
  std::vector<std::string_view> theirs;
};

const std::vector<Renamed>& gpt2_block() {
  static const std::vector<Renamed> names{
      {"attention_norm", {"ln_1"}}, {"attention.qkv", {"attn.c_attn"}}, {"attention.output", {"attn.c_proj"}},
      {"mlp_norm", {"ln_2"}},       {"mlp.up", {"mlp.c_fc"}},           {"mlp.down", {"mlp.c_proj"}}};
  return names;
}

const std::vector<Renamed>& llama_block() {
  static const std::vector<Renamed> names{
      {"attention_norm", {"input_layernorm"}},
      {"attention.qkv", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
      {"attention.output", {"self_attn.o_proj"}},
      {"mlp_norm", {"post_attention_layernorm"}},
      {"mlp.up", {"mlp.gate_proj", "mlp.up_proj"}},
      {"mlp.down", {"mlp.down_proj"}}};
  return names;
}

// Rows of each of theirs.
std::vector<std::int64_t> rows_of(const Transformer& t, std::string_view ours, std::int64_t all) {
  if (ours == "attention.qkv") {
    return {t.heads * t.head_size, t.kv_heads * t.head_size, t.kv_heads * t.head_size};
  }
  if (ours == "mlp.up") return {all / 2, all / 2};
  return {all};
}

// "block.3.mlp.up.weight" as 3, "mlp.up", "weight".
struct BlockName {
  std::string block;
  std::string_view middle, last;
};
BlockName take_apart(std::string_view name) {
  name.remove_prefix(std::string_view("block.").size());
  const std::size_t first = name.find('.'), end = name.rfind('.');
  return {std::string(name.substr(0, first)), name.substr(first + 1, end - first - 1), name.substr(end + 1)};
}

std::vector<HuggingFaceTensor> block_tensors(const Transformer& t, const Parameter& parameter) {
  const bool gpt2 = t.family == "gpt2";
  const BlockName name = take_apart(parameter.name);
  const auto& renames = gpt2 ? gpt2_block() : llama_block();
  const auto renamed =
      std::find_if(renames.begin(), renames.end(), [&](const Renamed& each) { return each.ours == name.middle; });
  assert(renamed != renames.end());
  const std::string prefix = (gpt2 ? "h." : "model.layers.") + name.block + ".";
  const std::vector<std::int64_t> rows =
      gpt2 ? std::vector{parameter.shape.front()} : rows_of(t, name.middle, parameter.shape.front());
  std::vector<HuggingFaceTensor> tensors;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    HuggingFaceTensor tensor{fmt::format("{}{}.{}", prefix, renamed->theirs[i], name.last), parameter.shape, false};
    tensor.shape.front() = rows[i];
    if (gpt2 && tensor.shape.size() == 2) {
      std::swap(tensor.shape[0], tensor.shape[1]);
      tensor.transposed = true;
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// (rows, columns) into (columns, rows).
void transpose(std::span<const float> from, std::int64_t rows, std::int64_t columns, std::span<float> to) {
  constexpr std::int64_t tile = 32;  // both sides stay in the cache
  for (std::int64_t r0 = 0; r0 < rows; r0 += tile) {
    for (std::int64_t c0 = 0; c0 < columns; c0 += tile) {
      for (std::int64_t r = r0; r < std::min(r0 + tile, rows); ++r) {
        for (std::int64_t c = c0; c < std::min(c0 + tile, columns); ++c) {
          to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * columns + c)];
        }
      }
    }
  }
}

std::int64_t elements(const HuggingFaceTensor& tensor) { return TensorInfo{"", tensor.shape}.elements(); }

}  // namespace

void check_hugging_face_names(const Transformer& transformer) {
  if (transformer.latent) throw bad_input("network: weights of latent attention are neither read nor written");
  if (transformer.experts > 0) {
    throw bad_input("network: weights of mixtures of experts are neither read nor written");
  }
  if (transformer.head != HeadKind::language_model) {
    throw bad_input("network: Hugging Face's files have names for language models, this one has a regression head");
  }
}

std::vector<HuggingFaceTensor> hugging_face_tensors(const Transformer& t, const Parameter& parameter) {
  if (parameter.name.starts_with("block.")) return block_tensors(t, parameter);
  const bool gpt2 = t.family == "gpt2";
  const auto whole = [&](std::string_view in_gpt2, std::string_view in_llama) {
    return std::vector{HuggingFaceTensor{std::string(gpt2 ? in_gpt2 : in_llama), parameter.shape, false}};
  };
  if (parameter.name == token_table) return whole("wte.weight", "model.embed_tokens.weight");
  if (parameter.name == "embedding.positions") return whole("wpe.weight", "");
  if (parameter.name == "head.norm.weight") return whole("ln_f.weight", "model.norm.weight");
  if (parameter.name == "head.norm.bias") return whole("ln_f.bias", "");
  assert(parameter.name == "head.projection.weight");
  return whole("lm_head.weight", "lm_head.weight");
}

HuggingFaceWeights::HuggingFaceWeights(const std::filesystem::path& path, const Transformer& transformer)
    : path_(path), transformer_(transformer) {
  check_hugging_face_names(transformer);
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const bool sharded = std::filesystem::exists(path / index_file, ignored);
    path_ = path / (sharded ? index_file : single_file);
  }
  if (path_.extension() == ".json") {
    open_shards(path_);
  } else {
    shards_.push_back(std::make_unique<SafetensorsReader>(path_));
    for (const TensorInfo& tensor : shards_.front()->tensors()) holder_[tensor.name] = shards_.front().get();
  }
  if (transformer.family == "gpt2" && holder_.contains(std::string(gpt2_prefix) + "wte.weight")) prefix_ = gpt2_prefix;
  check();
}

void HuggingFaceWeights::open_shards(const std::filesystem::path& index) {
  const Json document = read_json(index);
  JsonObject object = JsonValue(document, index.string()).object();
  std::map<std::string, const SafetensorsReader*> opened;
  for (const auto& [tensor, file] : object.required("weight_map").object().fields()) {
    const std::string name = file.string();
    // No way out of the folder.
    if (std::filesystem::path(name).filename() != name) throw file.expected("the name of a file beside the index");
    const SafetensorsReader*& reader = opened[name];
    if (reader == nullptr) {
      shards_.push_back(std::make_unique<SafetensorsReader>(index.parent_path() / name));
      reader = shards_.back().get();
    }
    if (!reader->has(tensor)) throw file.complain(fmt::format("has no tensor '{}'", printable(tensor)));
    holder_[tensor] = reader;
  }
}

const SafetensorsReader& HuggingFaceWeights::reader_of(const std::string& name) const {
  const auto found = holder_.find(name);
  if (found == holder_.end()) throw bad_input("{}: no tensor '{}'", path_.string(), name);
  return *found->second;
}

// Looks at every tensor that the network needs, without reading any.
void HuggingFaceWeights::check() const {
  for (const Parameter& parameter : network_parameters(transformer_)) {
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(transformer_, parameter)) {
      const std::string name = tensor.name.starts_with("lm_head") ? tensor.name : prefix_ + tensor.name;
      reader_of(name).expect_floats(name, tensor.shape);
    }
  }
}

void HuggingFaceWeights::read(const Parameter& parameter, std::span<float> data) const {
  std::vector<float> untransposed;
  for (const HuggingFaceTensor& tensor : hugging_face_tensors(transformer_, parameter)) {
    const std::string name = tensor.name.starts_with("lm_head") ? tensor.name : prefix_ + tensor.name;
    const auto count = static_cast<std::size_t>(elements(tensor));
    const std::span<float> part = data.first(count);
    if (tensor.transposed) {
      untransposed.resize(count);
      reader_of(name).read(name, tensor.shape, untransposed);
      transpose(untransposed, tensor.shape[0], tensor.shape[1], part);
    } else {
      reader_of(name).read(name, tensor.shape, part);
    }
    data = data.subspan(count);
  }
  assert(data.empty());
}

void export_to_hugging_face(const std::filesystem::path& checkpoint, const Transformer& transformer,
                            const std::filesystem::path& folder) {
  check_hugging_face_names(transformer);
  const Json config = to_hugging_face(transformer);
  const SafetensorsReader reader(checkpoint);
  const std::vector<Parameter> parameters = network_parameters(transformer);
  const std::string prefix(transformer.family == "gpt2" ? gpt2_prefix : "");
  std::vector<TensorInfo> infos;
  for (const Parameter& parameter : parameters) {
    reader.expect_floats(parameter.name, parameter.shape);
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(transformer, parameter)) {
      infos.push_back({tensor.name.starts_with("lm_head") ? tensor.name : prefix + tensor.name, tensor.shape});
    }
  }
  std::error_code ignored;  // the writer complains
  std::filesystem::create_directories(folder, ignored);
  // from_pretrained() refuses files that do not say which framework's layout they have.
  SafetensorsWriter writer(folder / single_file, infos, {{"format", "pt"}});
  std::vector<float> values, transposed;
  for (const Parameter& parameter : parameters) {
    values.resize(static_cast<std::size_t>(parameter.count()));
    reader.read(parameter.name, parameter.shape, values);
    std::span<const float> rest = values;
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(transformer, parameter)) {
      const std::span<const float> part = rest.first(static_cast<std::size_t>(elements(tensor)));
      if (tensor.transposed) {
        transposed.resize(part.size());
        transpose(part, tensor.shape[1], tensor.shape[0], transposed);
        writer.append(transposed);
      } else {
        writer.append(part);
      }
      rest = rest.subspan(part.size());
    }
  }
  writer.commit();
  write_file(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace stagecraft
