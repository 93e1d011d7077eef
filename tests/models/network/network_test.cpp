#include "models/network/network.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "models/error.hpp"

namespace stagecraft {
namespace {

Network read(const Json& document) { return network_from_json(JsonValue(document, "net.json"), "net"); }

std::string network_complaint(const Json& document) {
  try {
    read(document);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

Json tiny() {
  return {{"transformer",
           {{"family", "llama"},
            {"layers", 2},
            {"hidden", 8},
            {"heads", 4},
            {"ffn", 16},
            {"vocabulary", 10},
            {"max_sequence", 32}}}};
}

// The complaint about tiny() with one field of its transformer changed.
std::string complaint_with(const char* field, const Json& value) {
  Json document = tiny();
  document["transformer"][field] = value;
  return network_complaint(document);
}

TEST(Network, DerivesWhatTheTransformerLeavesOut) {
  const Network network = read(tiny());
  EXPECT_EQ(network.name, "net");
  ASSERT_TRUE(network.transformer);
  EXPECT_EQ(network.transformer->kv_heads, 4);
  EXPECT_EQ(network.transformer->head_size, 2);
  EXPECT_EQ(network.transformer->norm, NormKind::rms_norm);
  EXPECT_EQ(network.transformer->activation, ActivationKind::swiglu);
  EXPECT_FALSE(network.transformer->tied_head);

  Json gpt = tiny();
  gpt["transformer"]["family"] = "gpt2";
  gpt["transformer"].erase("ffn");
  EXPECT_EQ(read(gpt).transformer->ffn, 32);
  EXPECT_TRUE(read(gpt).transformer->tied_head);
  gpt["transformer"]["head"] = "regression";
  EXPECT_FALSE(read(gpt).transformer->tied_head);
}

TEST(Network, IsReadBackAsItWasWritten) {
  Json document = tiny();
  document["name"] = "other";
  document["transformer"].update({{"kv_heads", 2},
                                  {"head_size", 6},
                                  {"dropout", true},
                                  {"qkv_bias", true},
                                  {"linear_bias", true},
                                  {"norm", "layer_norm"},
                                  {"position", "learned"},
                                  {"activation", "gelu"},
                                  {"head", "regression"},
                                  {"norm_epsilon", 1e-7},
                                  {"rope_theta", 123.5},
                                  {"experts", 4},
                                  {"experts_per_token", 3}});
  const Network network = read(document);
  EXPECT_EQ(read(to_json(network)), network);
  for (const std::string& preset : network_presets()) {
    const Network loaded = load_network(preset);
    EXPECT_EQ(read(to_json(loaded)), loaded) << preset;
  }
}

Json latent_attention() {
  return {{"query_rank", 6}, {"kv_rank", 5}, {"nope_head_size", 4}, {"rope_head_size", 2}, {"value_head_size", 3}};
}

TEST(Network, ReadsLatentAttentionSharedExpertsAndLeadingDenseBlocks) {
  Json document = tiny();
  document["transformer"].update({{"latent_attention", latent_attention()},
                                  {"experts", 4},
                                  {"experts_per_token", 3},
                                  {"shared_experts", 2},
                                  {"dense_layers", 1},
                                  {"dense_ffn", 20}});
  const Network network = read(document);
  EXPECT_EQ(network.transformer->head_size, 6);
  EXPECT_EQ(network.transformer->latent, (LatentAttention{6, 5, 4, 2, 3}));
  EXPECT_EQ(network.transformer->shared_experts, 2);
  EXPECT_EQ(network.transformer->dense_ffn, 20);
  EXPECT_EQ(read(to_json(network)), network);
  document["transformer"]["latent_attention"]["query_rank"] = nullptr;
  EXPECT_EQ(read(document).transformer->latent->query_rank, 0);
}

TEST(Network, RefusesLatentAttentionAndDenseBlocksThatDoNotFit) {
  const auto with = [](const char* field, const Json& value) {
    Json document = tiny();
    document["transformer"]["latent_attention"] = latent_attention();
    (document["transformer"].contains(field) || std::string_view(field) == "position" ||
             std::string_view(field) == "kv_heads" || std::string_view(field) == "head_size"
         ? document["transformer"]
         : document["transformer"]["latent_attention"])[field] = value;
    return network_complaint(document);
  };
  EXPECT_EQ(with("heads", 4), "no error");
  EXPECT_EQ(with("kv_heads", 2), "net.json: transformer.kv_heads: expected 4 as heads, with latent attention, got 2");
  EXPECT_EQ(with("head_size", 8),
            "net.json: transformer.head_size: expected 6, that of latent attention with and without position, got 8");
  EXPECT_EQ(with("rope_head_size", 3),
            "net.json: transformer.latent_attention.rope_head_size: expected an even size for rotary positions, got 3");
  EXPECT_EQ(with("kv_rank", 0),
            "net.json: transformer.latent_attention.kv_rank: expected a whole number from 1 to 2147483648, got 0");
  EXPECT_EQ(with("v_rank", 1),
            "net.json: transformer.latent_attention: unknown field 'v_rank' (did you mean 'kv_rank'?)");
  EXPECT_EQ(with("position", "learned"), "net.json: transformer.latent_attention: expected rotary positions with it");
  EXPECT_EQ(complaint_with("shared_experts", 1), "net.json: transformer.shared_experts: expected 'experts' beside it");
  EXPECT_EQ(complaint_with("dense_layers", 1), "net.json: transformer.dense_layers: expected 'experts' beside it");
  EXPECT_EQ(complaint_with("dense_ffn", 8), "net.json: transformer.dense_ffn: expected 'dense_layers' beside it");
  Json document = tiny();
  document["transformer"].update({{"experts", 4}, {"experts_per_token", 3}, {"dense_layers", 2}});
  EXPECT_EQ(network_complaint(document),
            "net.json: transformer.dense_layers: expected a whole number from 0 to 1, got 2");
  document["transformer"]["dense_layers"] = 1;
  EXPECT_EQ(network_complaint(document), "net.json: transformer: missing field 'dense_ffn'");
}

TEST(Network, RefusesDimensionsThatDoNotFit) {
  EXPECT_EQ(complaint_with("layers", 1000000000),
            "net.json: transformer.layers: expected a whole number from 1 to 100000, got 1000000000");
  EXPECT_EQ(complaint_with("hidden", 0),
            "net.json: transformer.hidden: expected a whole number from 1 to 2147483648, got 0");
  EXPECT_EQ(complaint_with("hidden", -8),
            "net.json: transformer.hidden: expected a whole number from 1 to 2147483648, got -8");
  EXPECT_EQ(complaint_with("hidden", "8"),
            "net.json: transformer.hidden: expected a whole number from 1 to 2147483648, got \"8\"");
  EXPECT_EQ(complaint_with("heads", 3), "net.json: transformer.heads: expected a divisor of hidden = 8, got 3");
  EXPECT_EQ(complaint_with("kv_heads", 3), "net.json: transformer.kv_heads: expected a divisor of heads = 4, got 3");
  EXPECT_EQ(complaint_with("head_size", 3),
            "net.json: transformer.head_size: expected heads of an even size for rotary positions, got 3");
  EXPECT_EQ(complaint_with("experts", 4), "net.json: transformer: missing field 'experts_per_token'");
  EXPECT_EQ(complaint_with("experts_per_token", 4),
            "net.json: transformer.experts_per_token: expected 'experts' beside it");
  EXPECT_EQ(complaint_with("norm_epsilon", -1),
            "net.json: transformer.norm_epsilon: expected a number from 0 to 1, got -1");
}

TEST(Network, RefusesFieldsAndWordsThatItDoesNotKnow) {
  EXPECT_EQ(complaint_with("hiden", 8), "net.json: transformer: unknown field 'hiden' (did you mean 'hidden'?)");
  EXPECT_EQ(complaint_with("family", "bert"),
            "net.json: transformer.family: expected one of 'gpt2', 'llama', 'mistral', 'qwen2', 'mixtral', "
            "'deepseek_v2', 'deepseek_v3', 'kimi_k2', got \"bert\"");
  EXPECT_EQ(complaint_with("norm", "batch_norm"),
            "net.json: transformer.norm: expected one of 'layer_norm', 'rms_norm', got \"batch_norm\"");
  EXPECT_EQ(network_complaint({{"model", "gpt2"}}),
            "net.json: expected a network: an object with 'transformer', with 'layers', or a Hugging Face config.json "
            "with 'model_type'");
  EXPECT_EQ(network_complaint(Json::array()), "net.json: expected an object, got an array of 0");
  Json both = tiny();
  both["layers"] = Json::array();
  EXPECT_EQ(network_complaint(both), "net.json: unknown field 'layers'");
  Json regression = tiny();
  regression["transformer"].update({{"head", "regression"}, {"tied_head", true}});
  EXPECT_EQ(network_complaint(regression),
            "net.json: transformer.tied_head: expected false with a regression head, got true");
}

TEST(Network, RefusesParametersThatOverflow) {
  Json document = tiny();
  document["transformer"].update({{"hidden", 1LL << 31}, {"ffn", 1LL << 31}, {"layers", 100000}});
  EXPECT_EQ(network_complaint(document), "net.json: transformer: expected at most 10^18 parameters, got 3.23e+24");
  document["transformer"].update({{"layers", 1}, {"hidden", 1LL << 20}, {"ffn", 1LL << 20}});
  document["transformer"].update({{"vocabulary", 1LL << 31}, {"heads", 1LL << 31}, {"head_size", 1LL << 31}});
  EXPECT_THAT(network_complaint(document),
              testing::StartsWith("net.json: transformer: expected at most 10^18 parameters"));
}

TEST(Network, IsRefusedByNameWithTheNearestPreset) {
  try {
    load_network("gtp2");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("did you mean 'gpt2'?"));
  }
}

}  // namespace
}  // namespace stagecraft
