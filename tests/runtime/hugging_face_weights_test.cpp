// Names and layouts as Hugging Face's GPT-2 and Llama classes store them.
#include "runtime/hugging_face_weights.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/error.hpp"
#include "models/files.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using testing::Contains;
using testing::HasSubstr;

Transformer transformer_of(const std::string& config) {
  const Json document = parse_json(config, "config.json");
  return *network_from_json(JsonValue(document, "config.json"), "small").transformer;
}

Transformer small_gpt2() {
  return transformer_of(R"({"model_type": "gpt2", "n_layer": 2, "n_embd": 4, "n_head": 2, "vocab_size": 5,
                            "n_positions": 3})");
}

Transformer small_qwen2() {
  return transformer_of(R"({"model_type": "qwen2", "num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2,
                            "num_key_value_heads": 1, "intermediate_size": 3, "vocab_size": 5,
                            "max_position_embeddings": 8, "tie_word_embeddings": false})");
}

std::vector<std::string> names_of(const Transformer& transformer) {
  std::vector<std::string> names;
  for (const Parameter& each : network_parameters(transformer)) {
    for (const HuggingFaceTensor& tensor : hugging_face_tensors(transformer, each)) names.push_back(tensor.name);
  }
  return names;
}

// 0, 1, 2, ... over the whole network.
std::vector<float> values_of(const Transformer& transformer, const std::string& name) {
  float next = 0;
  for (const Parameter& each : network_parameters(transformer)) {
    std::vector<float> values(static_cast<std::size_t>(each.count()));
    for (float& value : values) value = next++;
    if (each.name == name) return values;
  }
  throw std::runtime_error("no parameter " + name);
}

class HuggingFaceWeightsTest : public testing::Test {
 protected:
  std::filesystem::path checkpoint(const Transformer& transformer) {
    std::vector<TensorInfo> infos;
    for (const Parameter& each : network_parameters(transformer)) infos.push_back({each.name, each.shape});
    SafetensorsWriter writer(folder_.path() / "step-00000001.safetensors", infos, {});
    for (const Parameter& each : network_parameters(transformer)) {
      writer.append(values_of(transformer, each.name));
    }
    writer.commit();
    return folder_.path() / "step-00000001.safetensors";
  }
  std::filesystem::path exported(const Transformer& transformer) {
    export_to_hugging_face(checkpoint(transformer), transformer, folder_.path() / "model");
    return folder_.path() / "model";
  }
  void expect_same_weights(const HuggingFaceWeights& weights, const Transformer& transformer) {
    for (const Parameter& each : network_parameters(transformer)) {
      std::vector<float> values(static_cast<std::size_t>(each.count()), -1);
      weights.read(each, values);
      EXPECT_EQ(values, values_of(transformer, each.name)) << each.name;
    }
  }
  TemporaryFolder folder_;
};

TEST_F(HuggingFaceWeightsTest, HaveTheNamesOfGpt2) {
  const std::vector<std::string> names = names_of(small_gpt2());
  EXPECT_EQ(names.size(), 2U + 2U * 12U + 2U);  // the head is tied
  for (const char* name : {"wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias", "h.0.attn.c_attn.weight",
                           "h.0.attn.c_attn.bias", "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.1.ln_2.weight",
                           "h.1.mlp.c_fc.weight", "h.1.mlp.c_fc.bias", "h.1.mlp.c_proj.weight", "h.1.mlp.c_proj.bias",
                           "ln_f.weight", "ln_f.bias"}) {
    EXPECT_THAT(names, Contains(name));
  }
}

TEST_F(HuggingFaceWeightsTest, HaveTheNamesOfQwen2) {
  EXPECT_THAT(
      names_of(small_qwen2()),
      testing::ElementsAre("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
                           "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.q_proj.bias",
                           "model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.v_proj.bias",
                           "model.layers.0.self_attn.o_proj.weight", "model.layers.0.post_attention_layernorm.weight",
                           "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight",
                           "model.layers.0.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"));
}

TEST_F(HuggingFaceWeightsTest, ReadWhatWasExported) {
  for (const Transformer& transformer : {small_gpt2(), small_qwen2()}) {
    expect_same_weights(HuggingFaceWeights(exported(transformer), transformer), transformer);
  }
}

TEST_F(HuggingFaceWeightsTest, KeepLinearWeightsOfGpt2Transposed) {
  const Transformer gpt2 = small_gpt2();
  const SafetensorsReader file(exported(gpt2) / "model.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const std::vector<float> ours = values_of(gpt2, "block.1.mlp.up.weight");  // (16, 4)
  std::vector<float> theirs(64);
  file.read("transformer.h.1.mlp.c_fc.weight", std::vector<std::int64_t>{4, 16}, theirs);
  for (std::size_t output = 0; output < 16; ++output) {
    for (std::size_t input = 0; input < 4; ++input) {
      EXPECT_EQ(theirs[input * 16 + output], ours[output * 4 + input]);
    }
  }
}

TEST_F(HuggingFaceWeightsTest, KeepQueryKeyAndValueApartInLlamas) {
  const Transformer qwen2 = small_qwen2();
  const SafetensorsReader file(exported(qwen2) / "model.safetensors");
  const std::vector<float> ours = values_of(qwen2, "block.0.attention.qkv.weight");  // (4 + 2 + 2, 4)
  std::vector<float> key(8);
  file.read("model.layers.0.self_attn.k_proj.weight", std::vector<std::int64_t>{2, 4}, key);
  EXPECT_EQ(key, std::vector<float>(ours.begin() + 16, ours.begin() + 24));
}

TEST_F(HuggingFaceWeightsTest, ComeWithAConfigOfTheSameNetwork) {
  for (const Transformer& transformer : {small_gpt2(), small_qwen2()}) {
    EXPECT_EQ(transformer_of(read_file(exported(transformer) / "config.json")), transformer);
  }
}

TEST_F(HuggingFaceWeightsTest, MayLieInShards) {
  const Transformer qwen2 = small_qwen2();
  const std::filesystem::path folder = folder_.path() / "shards";
  std::filesystem::create_directories(folder);
  const SafetensorsReader whole(exported(qwen2) / "model.safetensors");
  Json map = Json::object();
  for (int shard = 0; shard < 2; ++shard) {
    const std::string name = fmt::format("model-0000{}-of-00002.safetensors", shard + 1);
    std::vector<TensorInfo> infos;
    for (std::size_t i = 0; i < whole.tensors().size(); ++i) {
      if (static_cast<int>(i % 2) == shard) infos.push_back(whole.tensors()[i]);
    }
    SafetensorsWriter writer(folder / name, infos, {});
    for (const TensorInfo& info : infos) {
      std::vector<float> values(static_cast<std::size_t>(info.elements()));
      whole.read(info.name, info.shape, values);
      writer.append(values);
      map[info.name] = name;
    }
    writer.commit();
  }
  write_file(folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  expect_same_weights(HuggingFaceWeights(folder, qwen2), qwen2);
}

TEST_F(HuggingFaceWeightsTest, AreRefusedWhereTheyDoNotFitTheNetwork) {
  const std::filesystem::path folder = exported(small_gpt2());
  const auto complaint = [&](const std::filesystem::path& path, const Transformer& transformer) -> std::string {
    try {
      HuggingFaceWeights(path, transformer);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(complaint(folder, small_qwen2()), HasSubstr("no tensor 'model.embed_tokens.weight'"));
  Transformer wider = small_gpt2();
  wider.vocabulary = 6;
  EXPECT_THAT(complaint(folder, wider), HasSubstr("transformer.wte.weight.shape: expected [6, 4], got [5, 4]"));
  EXPECT_THAT(complaint(folder_.path() / "nowhere", small_gpt2()), HasSubstr("nowhere: cannot be read"));
  const auto index = folder_.file("model.safetensors.index.json", R"({"weight_map": {"a": "../x.safetensors"}})");
  EXPECT_THAT(complaint(index, small_gpt2()), HasSubstr("weight_map.a: expected the name of a file beside the index"));
  Transformer experts = small_gpt2();
  experts.experts = 8;
  EXPECT_THAT(complaint(folder, experts), HasSubstr("mixtures of experts"));
  Transformer latent = small_gpt2();
  latent.latent = LatentAttention{.kv_rank = 4};
  EXPECT_THAT(complaint(folder, latent), HasSubstr("latent attention"));
}

}  // namespace
}  // namespace stagecraft
