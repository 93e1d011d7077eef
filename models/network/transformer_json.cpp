#include "models/network/transformer_json.hpp"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

namespace stagecraft {
namespace {

constexpr std::int64_t max_layers = 100'000;
constexpr std::int64_t max_dimension = std::int64_t{1} << 31;
constexpr double max_parameters = 1e18;

constexpr std::pair<std::string_view, std::string_view> families[] = {
    {"gpt2", "gpt2"}, {"llama", "llama"}, {"mistral", "mistral"}, {"qwen2", "qwen2"}, {"mixtral", "mixtral"}};
constexpr std::pair<std::string_view, NormKind> norms[] = {{"layer_norm", NormKind::layer_norm},
                                                           {"rms_norm", NormKind::rms_norm}};
constexpr std::pair<std::string_view, PositionKind> positions[] = {{"learned", PositionKind::learned},
                                                                   {"rotary", PositionKind::rotary}};
constexpr std::pair<std::string_view, ActivationKind> activations[] = {{"gelu", ActivationKind::gelu},
                                                                       {"swiglu", ActivationKind::swiglu}};
constexpr std::pair<std::string_view, HeadKind> heads[] = {{"language_model", HeadKind::language_model},
                                                           {"regression", HeadKind::regression}};

constexpr DimensionNames own_names = {.layers = "layers",
                                      .hidden = "hidden",
                                      .heads = "heads",
                                      .kv_heads = "kv_heads",
                                      .head_size = "head_size",
                                      .ffn = "ffn",
                                      .vocabulary = "vocabulary",
                                      .max_sequence = "max_sequence",
                                      .experts = "experts",
                                      .experts_per_token = "experts_per_token",
                                      .tied_head = "tied_head",
                                      .norm_epsilon = "norm_epsilon",
                                      .rope_theta = "rope_theta"};

template <class T, std::size_t N>
std::string_view name_of(const std::pair<std::string_view, T> (&names)[N], T value) {
  return std::find_if(std::begin(names), std::end(names), [&](const auto& entry) { return entry.second == value; })
      ->first;
}

std::optional<JsonValue> field(JsonObject& object, std::string_view name) {
  return name.empty() ? std::nullopt : object.optional(name);
}

// A dimension that may stand in the file, else keeps its value, and is missed if that is zero.
void read_dimension(JsonObject& object, std::string_view name, std::int64_t& dimension) {
  if (const auto value = field(object, name)) {
    dimension = value->integer(1, max_dimension);
  } else if (dimension == 0) {
    object.required(name);  // throws
  }
}

void read_heads(JsonObject& object, const DimensionNames& names, Transformer& t) {
  const JsonValue count = object.required(names.heads);
  t.heads = count.integer(1, max_dimension);
  const auto kv_heads = field(object, names.kv_heads);
  if (kv_heads) t.kv_heads = kv_heads->integer(1, max_dimension);
  if (t.kv_heads == 0) t.kv_heads = t.heads;
  if (t.heads % t.kv_heads != 0) {
    if (kv_heads) throw kv_heads->expected(fmt::format("a divisor of {} = {}", names.heads, t.heads));
    throw count.expected(fmt::format("a multiple of {} = {}", names.kv_heads, t.kv_heads));
  }
  const auto size = field(object, names.head_size);
  if (size) {
    t.head_size = size->integer(1, max_dimension);
  } else {
    if (t.hidden % t.heads != 0) throw count.expected(fmt::format("a divisor of {} = {}", names.hidden, t.hidden));
    t.head_size = t.hidden / t.heads;
  }
  if (t.position == PositionKind::rotary && t.head_size % 2 != 0) {
    throw(size ? *size : count)
        .complain(fmt::format("expected heads of an even size for rotary positions, got {}", t.head_size));
  }
}

void read_experts(JsonObject& object, const DimensionNames& names, Transformer& t) {
  if (names.experts.empty()) return;
  const auto per_token = object.optional(names.experts_per_token);
  if (const auto experts = object.optional(names.experts)) t.experts = experts->integer(1, max_dimension);
  if (t.experts == 0) {
    if (per_token) throw per_token->complain(fmt::format("expected '{}' beside it", names.experts));
    return;
  }
  if (per_token) {
    t.experts_per_token = per_token->integer(1, t.experts);
  } else if (t.experts_per_token == 0) {
    object.required(names.experts_per_token);  // throws
  } else if (t.experts_per_token > t.experts) {
    throw object.value().complain(
        fmt::format("expected at least {} '{}', got {}", t.experts_per_token, names.experts, t.experts));
  }
}

}  // namespace

std::span<const std::pair<std::string_view, std::string_view>> transformer_families() { return families; }

Transformer architecture_of(std::string_view family) {
  Transformer t;
  t.family = family;
  if (family == "gpt2") {
    t.tied_head = t.qkv_bias = t.linear_bias = true;
    return t;  // the rest is as the struct says
  }
  t.norm = NormKind::rms_norm;
  t.position = PositionKind::rotary;
  t.activation = ActivationKind::swiglu;
  t.qkv_bias = family == "qwen2";
  return t;
}

void read_dimensions(JsonObject& object, const DimensionNames& names, Transformer& t) {
  t.layers = object.required(names.layers).integer(1, max_layers);
  t.hidden = object.required(names.hidden).integer(1, max_dimension);
  read_heads(object, names, t);
  if (t.activation == ActivationKind::gelu) t.ffn = 4 * t.hidden;
  read_dimension(object, names.ffn, t.ffn);
  read_dimension(object, names.vocabulary, t.vocabulary);
  read_dimension(object, names.max_sequence, t.max_sequence);
  read_experts(object, names, t);
  if (const auto tied = field(object, names.tied_head)) t.tied_head = tied->boolean();
  if (const auto epsilon = field(object, names.norm_epsilon)) t.norm_epsilon = epsilon->number(0, 1);
  if (const auto theta = field(object, names.rope_theta)) t.rope_theta = theta->number(1, 1e18);
  if (const double parameters = approximate_parameters(t); parameters > max_parameters) {
    throw object.value().complain(fmt::format("expected at most 10^18 parameters, got {:.3g}", parameters));
  }
}

Transformer transformer_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Transformer t = architecture_of(object.required("family").one_of(transformer_families()));
  if (const auto norm = object.optional("norm")) t.norm = norm->one_of<NormKind>(norms);
  if (const auto position = object.optional("position")) t.position = position->one_of<PositionKind>(positions);
  if (const auto kind = object.optional("activation")) t.activation = kind->one_of<ActivationKind>(activations);
  if (const auto head = object.optional("head")) t.head = head->one_of<HeadKind>(heads);
  if (const auto bias = object.optional("qkv_bias")) t.qkv_bias = bias->boolean();
  if (const auto bias = object.optional("linear_bias")) t.linear_bias = bias->boolean();
  if (const auto dropout = object.optional("dropout")) t.dropout = dropout->boolean();
  if (t.head == HeadKind::regression) t.tied_head = false;
  read_dimensions(object, own_names, t);
  if (t.head == HeadKind::regression && t.tied_head) {
    throw object.required("tied_head").expected("false with a regression head");
  }
  object.finish();
  return t;
}

Json to_json(const Transformer& t) {
  Json json = {{"family", t.family},
               {"layers", t.layers},
               {"hidden", t.hidden},
               {"heads", t.heads},
               {"kv_heads", t.kv_heads},
               {"head_size", t.head_size},
               {"ffn", t.ffn},
               {"vocabulary", t.vocabulary},
               {"max_sequence", t.max_sequence},
               {"tied_head", t.tied_head},
               {"qkv_bias", t.qkv_bias},
               {"linear_bias", t.linear_bias},
               {"dropout", t.dropout},
               {"norm", name_of(norms, t.norm)},
               {"position", name_of(positions, t.position)},
               {"activation", name_of(activations, t.activation)},
               {"head", name_of(heads, t.head)},
               {"norm_epsilon", t.norm_epsilon},
               {"rope_theta", t.rope_theta}};
  if (t.experts > 0) {
    json["experts"] = t.experts;
    json["experts_per_token"] = t.experts_per_token;
  }
  return json;
}

}  // namespace stagecraft
