#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "models/error.hpp"
#include "models/network/network.hpp"
#include "models/network/transformer_json.hpp"

namespace stagecraft {
namespace {

Network read(const Json& config, const std::string& name) {
  return network_from_json(JsonValue(config, "config.json"), name);
}

std::string config_complaint(const Json& config) {
  try {
    read(config, "net");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

// The fields that the published files have, with the ones that say nothing about the shape represented by a few.
const Json gpt2 = Json::parse(R"({
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
  "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
  "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_inner": null, "n_layer": 12,
  "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
  "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257})");

const Json llama_31_8b = Json::parse(R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "hidden_act": "silu",
  "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})");

const Json mistral_7b = Json::parse(R"({
  "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
  "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
  "tie_word_embeddings": false, "vocab_size": 32000})");

const Json qwen25_7b = Json::parse(R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 3584,
  "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2",
  "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false, "use_sliding_window": false,
  "vocab_size": 152064})");

const Json mixtral = Json::parse(R"({
  "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 4096,
  "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
  "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
  "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
  "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32000})");

const Json deepseek_v3 = Json::parse(R"({
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
  "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
  "moe_layer_freq": 1, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
  "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_theta": 10000,
  "scoring_func": "sigmoid", "tie_word_embeddings": false, "v_head_dim": 128, "vocab_size": 129280})");

TEST(HuggingFace, ReadsLatentAttentionAndExpertsOfDeepSeek) {
  EXPECT_EQ(read(deepseek_v3, "deepseek-v3"), load_network("deepseek-v3"));
  Json lite = deepseek_v3;
  lite["model_type"] = "deepseek_v2";
  lite["q_lora_rank"] = nullptr;
  lite["n_shared_experts"] = nullptr;
  lite["first_k_dense_replace"] = 0;
  lite["head_dim"] = 64;  // transformers writes that of the rotary part
  lite.erase("intermediate_size");
  const Transformer t = *read(lite, "x").transformer;
  EXPECT_EQ(t.latent->query_rank, 0);
  EXPECT_EQ(t.shared_experts, 0);
  EXPECT_EQ(t.dense_layers, 0);
  EXPECT_EQ(t.head_size, 128 + 64);
  EXPECT_EQ(*read(to_hugging_face(t), "x").transformer, t);
}

TEST(HuggingFace, RefusesWhatDeepSeekHasNot) {
  const auto with = [](const char* field, const Json& value) {
    Json config = deepseek_v3;
    config[field] = value;
    return config_complaint(config);
  };
  EXPECT_EQ(with("attention_bias", true),
            "config.json: attention_bias: expected false (projections without bias), got true");
  EXPECT_EQ(with("moe_layer_freq", 2), "config.json: moe_layer_freq: expected a whole number from 1 to 1, got 2");
  EXPECT_EQ(with("num_key_value_heads", 8),
            "config.json: num_key_value_heads: expected 128 as num_attention_heads, with latent attention, got 8");
  EXPECT_EQ(with("first_k_dense_replace", 61),
            "config.json: first_k_dense_replace: expected a whole number from 0 to 60, got 61");
  EXPECT_EQ(with("n_routed_experts", nullptr),
            "config.json: missing field 'n_routed_experts' (found 'n_shared_experts' instead)");
  Json config = deepseek_v3;
  config.erase("q_lora_rank");
  EXPECT_EQ(config_complaint(config), "config.json: missing field 'q_lora_rank' (found 'kv_lora_rank' instead)");
  // Without its own sizes no such configuration can be written.
  Transformer t = *load_network("deepseek-v3").transformer;
  t.latent.reset();
  t.head_size = 56;
  EXPECT_THROW(to_hugging_face(t), Error);
}

TEST(HuggingFace, WritesConfigurationsThatReadAsTheSameNetwork) {
  for (const std::string& name : network_presets()) {
    const Transformer preset = *load_network(name).transformer;
    EXPECT_EQ(*read(to_hugging_face(preset), name).transformer, preset) << name;
  }
  Transformer odd = *load_network("gpt2").transformer;
  odd.norm = NormKind::rms_norm;
  EXPECT_THROW(to_hugging_face(odd), Error);
}

TEST(HuggingFace, ConfigurationsOfTheFiveFamiliesEqualThePresets) {
  EXPECT_EQ(read(gpt2, "gpt2"), load_network("gpt2"));
  EXPECT_EQ(read(llama_31_8b, "llama-3.1-8b"), load_network("llama-3.1-8b"));
  EXPECT_EQ(read(mistral_7b, "mistral-7b"), load_network("mistral-7b"));
  EXPECT_EQ(read(qwen25_7b, "qwen2.5-7b"), load_network("qwen2.5-7b"));
  EXPECT_EQ(read(mixtral, "mixtral-8x7b"), load_network("mixtral-8x7b"));
}

TEST(HuggingFace, AbsentFieldsHaveTheFamilysDefault) {
  Json config = llama_31_8b;
  for (const char* field : {"num_key_value_heads", "tie_word_embeddings", "rope_theta", "rms_norm_eps",
                            "max_position_embeddings", "attention_bias", "mlp_bias", "hidden_act"}) {
    config.erase(field);
  }
  const Transformer llama = *read(config, "x").transformer;
  EXPECT_EQ(llama.kv_heads, 32);
  EXPECT_EQ(llama.max_sequence, 2048);
  EXPECT_EQ(llama.rope_theta, 10000);
  EXPECT_EQ(llama.norm_epsilon, 1e-6);
  EXPECT_FALSE(llama.tied_head);

  config = mistral_7b;
  config.erase("num_key_value_heads");
  EXPECT_EQ(read(config, "x").transformer->kv_heads, 8);
  config["num_key_value_heads"] = nullptr;
  EXPECT_EQ(read(config, "x").transformer->kv_heads, 32);

  config = mixtral;
  config.erase("num_local_experts");
  config.erase("num_experts_per_tok");
  EXPECT_EQ(read(config, "x").transformer, read(mixtral, "x").transformer);
}

TEST(HuggingFace, StatedFieldsOverrideWhatWouldBeDerived) {
  Json config = llama_31_8b;
  config["tie_word_embeddings"] = true;
  config["head_dim"] = 64;
  config["attention_dropout"] = 0.1;
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_theta", 250000.0}, {"rope_type", "default"}};
  const Transformer llama = *read(config, "x").transformer;
  EXPECT_TRUE(llama.tied_head);
  EXPECT_EQ(llama.head_size, 64);
  EXPECT_TRUE(llama.dropout);
  EXPECT_EQ(llama.rope_theta, 250000);

  config = gpt2;
  config["n_inner"] = 1000;
  config["tie_word_embeddings"] = false;
  config["attn_pdrop"] = config["embd_pdrop"] = config["resid_pdrop"] = 0;
  const Transformer gpt = *read(config, "x").transformer;
  EXPECT_EQ(gpt.ffn, 1000);
  EXPECT_FALSE(gpt.tied_head);
  EXPECT_FALSE(gpt.dropout);
}

TEST(HuggingFace, UnknownModelsAreRefusedWithTheKnownOnes) {
  EXPECT_EQ(config_complaint({{"model_type", "bert"}}),
            "config.json: model_type: expected one of 'gpt2', 'llama', 'mistral', 'qwen2', 'mixtral', 'deepseek_v2', "
            "'deepseek_v3', 'kimi_k2', got \"bert\"");
  EXPECT_EQ(config_complaint({{"model_type", 7}}),
            "config.json: model_type: expected one of 'gpt2', 'llama', 'mistral', 'qwen2', 'mixtral', 'deepseek_v2', "
            "'deepseek_v3', 'kimi_k2', got 7");
}

TEST(HuggingFace, ComplaintsUseTheFilesOwnNames) {
  const auto with = [](Json config, const char* field, const Json& value) {
    config[field] = value;
    return config_complaint(config);
  };
  EXPECT_EQ(with(llama_31_8b, "num_attention_heads", 7),
            "config.json: num_key_value_heads: expected a divisor of num_attention_heads = 7, got 8");
  EXPECT_EQ(with(llama_31_8b, "num_hidden_layers", 1e9),
            "config.json: num_hidden_layers: expected a whole number from 1 to 100000, got 1000000000.0");
  EXPECT_EQ(with(llama_31_8b, "vocab_size", -1),
            "config.json: vocab_size: expected a whole number from 1 to 2147483648, got -1");
  EXPECT_EQ(with(llama_31_8b, "hidden_act", "relu"),
            "config.json: hidden_act: expected one of 'silu', 'swish', got \"relu\"");
  EXPECT_EQ(with(llama_31_8b, "attention_bias", true),
            "config.json: mlp_bias: expected 'attention_bias' and 'mlp_bias' to be equal");
  EXPECT_EQ(with(gpt2, "n_head", 7), "config.json: n_head: expected a divisor of n_embd = 768, got 7");
  EXPECT_EQ(with(gpt2, "activation_function", "relu"),
            "config.json: activation_function: expected one of 'gelu_new', 'gelu_pytorch_tanh', 'gelu_fast', got "
            "\"relu\"");
  EXPECT_EQ(with(gpt2, "add_cross_attention", true),
            "config.json: add_cross_attention: expected false (a decoder without an encoder), got true");
  EXPECT_EQ(with(gpt2, "n_embd", nullptr), "config.json: missing field 'n_embd'");
  EXPECT_EQ(with(mixtral, "num_experts_per_tok", 9),
            "config.json: num_experts_per_tok: expected a whole number from 1 to 8, got 9");
}

}  // namespace
}  // namespace stagecraft
