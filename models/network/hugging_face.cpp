#include <nlohmann/json.hpp>
#include <span>

#include "models/network/transformer_json.hpp"

namespace stagecraft {
namespace {

constexpr DimensionNames gpt2_names = {.layers = "n_layer",
                                       .hidden = "n_embd",
                                       .heads = "n_head",
                                       .kv_heads = "",
                                       .head_size = "",
                                       .ffn = "n_inner",
                                       .vocabulary = "vocab_size",
                                       .max_sequence = "n_positions",
                                       .experts = "",
                                       .experts_per_token = "",
                                       .tied_head = "tie_word_embeddings",
                                       .norm_epsilon = "layer_norm_epsilon",
                                       .rope_theta = "",
                                       .shared_experts = "",
                                       .dense_layers = "",
                                       .dense_ffn = ""};

constexpr DimensionNames llama_names = {.layers = "num_hidden_layers",
                                        .hidden = "hidden_size",
                                        .heads = "num_attention_heads",
                                        .kv_heads = "num_key_value_heads",
                                        .head_size = "head_dim",
                                        .ffn = "intermediate_size",
                                        .vocabulary = "vocab_size",
                                        .max_sequence = "max_position_embeddings",
                                        .experts = "",
                                        .experts_per_token = "",
                                        .tied_head = "tie_word_embeddings",
                                        .norm_epsilon = "rms_norm_eps",
                                        .rope_theta = "rope_theta",
                                        .shared_experts = "",
                                        .dense_layers = "",
                                        .dense_ffn = ""};

constexpr LatentNames latent_names = {.query_rank = "q_lora_rank",
                                      .kv_rank = "kv_lora_rank",
                                      .nope_head_size = "qk_nope_head_dim",
                                      .rope_head_size = "qk_rope_head_dim",
                                      .value_head_size = "v_head_dim"};

bool is_deepseek(std::string_view family) {
  return family == "deepseek_v2" || family == "deepseek_v3" || family == "kimi_k2";
}

// Of all families but gpt2.
DimensionNames names_of(std::string_view family) {
  DimensionNames names = llama_names;
  if (family == "mixtral") names.experts = "num_local_experts", names.experts_per_token = "num_experts_per_tok";
  if (is_deepseek(family)) {
    names.head_size = "";  // of the rotary part, where a file has it
    names.ffn = "moe_intermediate_size";
    names.experts = "n_routed_experts", names.experts_per_token = "num_experts_per_tok";
    names.shared_experts = "n_shared_experts";
    names.dense_layers = "first_k_dense_replace", names.dense_ffn = "intermediate_size";
  }
  return names;
}

// What Hugging Face's configuration classes assume for fields that a file leaves out. Dimensions that every published
// file states are not among them: a file without its width is broken, not of default width.
void set_defaults(Transformer& t) {
  if (t.family == "gpt2") {
    t.max_sequence = 1024;
    return;
  }
  t.norm_epsilon = t.family == "mixtral" ? 1e-5 : 1e-6;
  if (t.family == "llama") t.max_sequence = 2048;
  if (t.family == "mistral") t.max_sequence = 131072, t.kv_heads = 8;
  if (t.family == "qwen2") t.max_sequence = 32768, t.kv_heads = 32;
  if (t.family == "mixtral") {
    t.max_sequence = 131072, t.kv_heads = 8;
    t.rope_theta = 1e6;
    t.experts = 8, t.experts_per_token = 2;
  }
  if (is_deepseek(t.family)) t.max_sequence = t.family == "deepseek_v2" ? 2048 : 4096;
}

// The classes take an explicit null for "as many as heads", unlike an absent field.
void read_null_kv_heads(const JsonValue& value, Transformer& t) {
  const auto field = value.json().find(llama_names.kv_heads);
  if (field != value.json().end() && field->is_null()) t.kv_heads = 0;
}

// A field with one of the values that our operations stand for; other activations would run as something else.
void check_activation(JsonObject& object, std::string_view name,
                      std::span<const std::pair<std::string_view, bool>> ok) {
  if (const auto activation = object.optional(name)) activation->one_of(ok);
}

bool has_dropout(JsonObject& object, std::string_view name, double otherwise) {
  const auto rate = object.optional(name);
  return (rate ? rate->number(0, 1) : otherwise) > 0;
}

void read_gpt2(JsonObject& object, Transformer& t) {
  static constexpr std::pair<std::string_view, bool> tanh_gelu[] = {
      {"gelu_new", true}, {"gelu_pytorch_tanh", true}, {"gelu_fast", true}};
  check_activation(object, "activation_function", tanh_gelu);
  const auto cross = object.optional("add_cross_attention");
  if (cross && cross->boolean()) throw cross->expected("false (a decoder without an encoder)");
  for (const char* name : {"resid_pdrop", "embd_pdrop", "attn_pdrop"}) {
    if (has_dropout(object, name, 0.1)) t.dropout = true;
  }
  read_dimensions(object, gpt2_names, t);
}

// Latent attention, and experts in every block behind the first few.
void read_deepseek(JsonObject& object, Transformer& t) {
  if (const auto bias = object.optional("attention_bias"); bias && bias->boolean()) {
    throw bias->expected("false (projections without bias)");
  }
  if (const auto every = object.optional("moe_layer_freq")) every->integer(1, 1);
  for (const char* name : {"n_routed_experts", "num_experts_per_tok", "first_k_dense_replace"}) object.required(name);
  t.latent = read_latent_attention(object, latent_names);
}

void read_llama_like(JsonObject& object, Transformer& t) {
  static constexpr std::pair<std::string_view, bool> silu[] = {{"silu", true}, {"swish", true}};
  check_activation(object, "hidden_act", silu);
  t.dropout = has_dropout(object, "attention_dropout", 0);
  if (t.family == "llama") {
    const auto attention = object.optional("attention_bias");
    const auto mlp = object.optional("mlp_bias");
    t.qkv_bias = t.linear_bias = attention && attention->boolean();
    if ((mlp && mlp->boolean()) != t.linear_bias) {
      throw(mlp ? *mlp : *attention).complain("expected 'attention_bias' and 'mlp_bias' to be equal");
    }
  }
  if (is_deepseek(t.family)) read_deepseek(object, t);
  read_null_kv_heads(object.value(), t);
  // Newer files keep the base of the rotation in an object of its own.
  if (const auto rotation = object.optional("rope_parameters")) {
    JsonObject parameters = rotation->object();
    if (const auto theta = parameters.optional("rope_theta")) t.rope_theta = theta->number(1, 1e18);
  }
  read_dimensions(object, names_of(t.family), t);
}

Json gpt2_config(const Transformer& t) {
  const double dropout = t.dropout ? 0.1 : 0;
  return {
      {"activation_function", "gelu_new"}, {"resid_pdrop", dropout}, {"embd_pdrop", dropout}, {"attn_pdrop", dropout}};
}

Json llama_like_config(const Transformer& t) {
  Json config = {{"hidden_act", "silu"}, {"attention_dropout", t.dropout ? 0.1 : 0}};
  if (t.family == "llama") config["attention_bias"] = config["mlp_bias"] = t.linear_bias;
  return config;
}

std::string_view class_name(std::string_view family) {
  if (family == "gpt2") return "GPT2LMHeadModel";
  if (family == "llama") return "LlamaForCausalLM";
  if (family == "mistral") return "MistralForCausalLM";
  if (family == "deepseek_v2") return "DeepseekV2ForCausalLM";
  if (is_deepseek(family)) return "DeepseekV3ForCausalLM";
  return family == "qwen2" ? "Qwen2ForCausalLM" : "MixtralForCausalLM";
}

}  // namespace

Json to_hugging_face(const Transformer& t) {
  const bool gpt2 = t.family == "gpt2";
  Json config = {{"architectures", {class_name(t.family)}}, {"model_type", t.family}};
  config.update(gpt2 ? gpt2_config(t) : llama_like_config(t));
  const DimensionNames names = gpt2 ? gpt2_names : names_of(t.family);
  const auto put = [&](std::string_view name, const Json& value) {
    if (!name.empty()) config[std::string(name)] = value;
  };
  put(names.layers, t.layers);
  put(names.hidden, t.hidden);
  put(names.heads, t.heads);
  put(names.kv_heads, t.kv_heads);
  put(names.head_size, t.head_size);
  put(names.ffn, t.ffn);
  put(names.vocabulary, t.vocabulary);
  put(names.max_sequence, t.max_sequence);
  put(names.experts, t.experts);
  put(names.experts_per_token, t.experts_per_token);
  put(names.tied_head, t.tied_head);
  put(names.norm_epsilon, t.norm_epsilon);
  put(names.rope_theta, t.rope_theta);
  put(names.shared_experts, t.shared_experts);
  put(names.dense_layers, t.dense_layers);
  put(names.dense_ffn, t.dense_ffn);
  if (is_deepseek(t.family) && t.latent) {
    put(latent_names.query_rank, t.latent->query_rank > 0 ? Json(t.latent->query_rank) : Json());
    put(latent_names.kv_rank, t.latent->kv_rank);
    put(latent_names.nope_head_size, t.latent->nope_head_size);
    put(latent_names.rope_head_size, t.latent->rope_head_size);
    put(latent_names.value_head_size, t.latent->value_head_size);
  }
  if (transformer_from_hugging_face(JsonValue(config, "config.json")) != t) {
    throw bad_input("network: its '{}' differs from what a Hugging Face config.json of that kind can say", t.family);
  }
  return config;
}

Transformer transformer_from_hugging_face(const JsonValue& value) {
  JsonObject object = value.object();
  Transformer t = architecture_of(object.required("model_type").one_of(transformer_families()));
  set_defaults(t);
  if (t.family == "gpt2") {
    read_gpt2(object, t);
  } else {
    read_llama_like(object, t);
  }
  return t;  // without finish(): these files gain fields with every release
}

}  // namespace stagecraft
