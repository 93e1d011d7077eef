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

constexpr std::pair<std::string_view, std::string_view> families[] = {{"gpt2", "gpt2"},
                                                                      {"llama", "llama"},
                                                                      {"mistral", "mistral"},
                                                                      {"qwen2", "qwen2"},
                                                                      {"mixtral", "mixtral"},
                                                                      {"deepseek_v2", "deepseek_v2"},
                                                                      {"deepseek_v3", "deepseek_v3"},
                                                                      {"kimi_k2", "kimi_k2"}};
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
                                      .rope_theta = "rope_theta",
                                      .shared_experts = "shared_experts",
                                      .dense_layers = "dense_layers",
                                      .dense_ffn = "dense_ffn"};
constexpr LatentNames own_latent_names = {.query_rank = "query_rank",
                                          .kv_rank = "kv_rank",
                                          .nope_head_size = "nope_head_size",
                                          .rope_head_size = "rope_head_size",
                                          .value_head_size = "value_head_size"};

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
  if (t.latent && t.kv_heads != t.heads) {
    throw kv_heads->expected(fmt::format("{} as {}, with latent attention", t.heads, names.heads));
  }
  if (t.heads % t.kv_heads != 0) {
    if (kv_heads) throw kv_heads->expected(fmt::format("a divisor of {} = {}", names.heads, t.heads));
    throw count.expected(fmt::format("a multiple of {} = {}", names.kv_heads, t.kv_heads));
  }
  const auto size = field(object, names.head_size);
  if (t.latent) {
    t.head_size = t.latent->nope_head_size + t.latent->rope_head_size;
    if (size && size->integer(1, 2 * max_dimension) != t.head_size) {
      throw size->expected(fmt::format("{}, that of latent attention with and without position", t.head_size));
    }
    return;
  }
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
  const auto shared = field(object, names.shared_experts), dense = field(object, names.dense_layers);
  if (const auto experts = object.optional(names.experts)) t.experts = experts->integer(1, max_dimension);
  if (t.experts == 0) {
    for (const auto& beside : {per_token, shared, dense}) {
      if (beside) throw beside->complain(fmt::format("expected '{}' beside it", names.experts));
    }
    return;
  }
  if (shared) t.shared_experts = shared->integer(0, max_dimension);
  if (dense) t.dense_layers = dense->integer(0, t.layers - 1);
  if (t.dense_layers > 0) t.dense_ffn = object.required(names.dense_ffn).integer(1, max_dimension);
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

LatentAttention read_latent_attention(JsonObject& object, const LatentNames& names) {
  LatentAttention latent;
  const Json& json = object.value().json();
  const auto rank = json.find(names.query_rank);
  const auto size = [&](std::string_view name) { return object.required(name).integer(1, max_dimension); };
  object.ignore(names.query_rank);
  if (rank == json.end() || !rank->is_null()) {
    latent.query_rank = object.required(names.query_rank).integer(0, max_dimension);
  }
  latent.kv_rank = size(names.kv_rank);
  latent.nope_head_size = size(names.nope_head_size);
  const JsonValue rope = object.required(names.rope_head_size);
  latent.rope_head_size = rope.integer(1, max_dimension);
  if (latent.rope_head_size % 2 != 0) throw rope.expected("an even size for rotary positions");
  latent.value_head_size = size(names.value_head_size);
  return latent;
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
  if (const auto latent = object.optional("latent_attention")) {
    if (t.position != PositionKind::rotary) throw latent->complain("expected rotary positions with it");
    if (t.qkv_bias) throw latent->complain("expected no 'qkv_bias' with it");
    JsonObject sizes = latent->object();
    t.latent = read_latent_attention(sizes, own_latent_names);
    sizes.finish();
  }
  read_dimensions(object, own_names, t);
  if (const auto width = object.optional(own_names.dense_ffn); width && t.dense_layers == 0) {
    throw width->complain(fmt::format("expected '{}' beside it", own_names.dense_layers));
  }
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
  if (t.shared_experts > 0) json["shared_experts"] = t.shared_experts;
  if (t.dense_layers > 0) {
    json["dense_layers"] = t.dense_layers;
    json["dense_ffn"] = t.dense_ffn;
  }
  if (t.latent) {
    json["latent_attention"] = {{"query_rank", t.latent->query_rank},
                                {"kv_rank", t.latent->kv_rank},
                                {"nope_head_size", t.latent->nope_head_size},
                                {"rope_head_size", t.latent->rope_head_size},
                                {"value_head_size", t.latent->value_head_size}};
  }
  return json;
}

}  // namespace stagecraft
