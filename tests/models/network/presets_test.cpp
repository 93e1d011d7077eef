#include <gmock/gmock.h>

#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"

namespace stagecraft {
namespace {

TEST(NetworkPresets, HaveTheParametersOfThePublishedModels) {
  const std::pair<const char*, std::int64_t> published[] = {
      {"gpt2", 124'439'808},
      {"gpt2-medium", 354'823'168},
      {"gpt2-large", 774'030'080},
      {"gpt2-xl", 1'557'611'200},
      {"llama-2-7b", 6'738'415'616},
      {"llama-2-13b", 13'015'864'320},
      {"llama-2-70b", 68'976'648'192},
      {"llama-3-8b", 8'030'261'248},
      {"llama-3-70b", 70'553'706'496},
      {"llama-3.1-8b", 8'030'261'248},
      {"llama-3.1-70b", 70'553'706'496},
      {"llama-3.1-405b", 405'853'388'800},
      {"mistral-7b", 7'241'732'096},
      {"qwen2.5-7b", 7'615'616'512},
      {"qwen2.5-72b", 72'706'203'648},
      {"mixtral-8x7b", 46'702'792'704},
      {"deepseek-v2", 235'741'434'880},
      {"qwen3-30b-a3b", 30'532'122'624 - 48 * 2 * 128},  // published; without norms of queries and keys
      {"qwen3-235b-a22b", 235'093'634'560 - 94 * 2 * 128},
      // Without the biases of the routers, which are not trained by gradients: one for each expert.
      {"deepseek-v3", 671'026'419'200 - std::int64_t{58} * 256},
      {"kimi-k2", 1'026'408'232'448 - std::int64_t{60} * 384},
  };
  for (const auto& [name, parameters] : published) {
    EXPECT_EQ(total_parameters(load_network(name).graph), parameters) << name;
  }
}

// Of DeepSeek-AI 2024, arXiv 2405.04434 and 2412.19437, in their abstracts: parameters, and those that a token passes.
TEST(NetworkPresets, HaveTheParametersOfTheDeepSeekPapers) {
  struct Published {
    const char* name;
    double total, activated;
  };
  for (const Published& published : {Published{"deepseek-v2", 236e9, 21e9}, Published{"deepseek-v3", 671e9, 37e9}}) {
    const Network network = load_network(published.name);
    EXPECT_NEAR(static_cast<double>(total_parameters(network.graph)) / published.total, 1, 0.003);
    double flops = 0;
    for (LayerId layer = 0; layer < network.graph.layers(); ++layer) {
      flops += network.graph[layer].matmul_flops.at(1, 1);
    }
    EXPECT_NEAR(flops / 2 / published.activated, 1, 0.03) << published.name;
  }
}

// Brown et al. 2020 give millions, rounded, in table D.1.
TEST(NetworkPresets, HaveTheParametersOfTheGpt3PaperWithinItsRounding) {
  const std::pair<const char*, double> published[] = {
      {"gpt3-125m", 125e6},   {"gpt3-350m", 356e6},   {"gpt3-760m", 760e6},   {"gpt3-1.3b", 1'320e6},
      {"gpt3-2.7b", 2'650e6}, {"gpt3-6.7b", 6'660e6}, {"gpt3-13b", 12'850e6}, {"gpt3-175b", 174'600e6},
  };
  for (const auto& [name, parameters] : published) {
    const auto counted = static_cast<double>(total_parameters(load_network(name).graph));
    EXPECT_NEAR(counted / parameters, 1, 0.005) << name;
  }
}

TEST(NetworkPresets, AreNamedLikeTheirFiles) {
  const std::vector<std::string> names = network_presets();
  EXPECT_EQ(names.size(), 31U);
  for (const std::string& name : names) EXPECT_EQ(load_network(name).name, name);
}

TEST(NetworkPresets, DemosSpeakBytesAndTieNothing) {
  for (const char* name : {"demo-gpt", "demo-llama"}) {
    const Network demo = load_network(name);
    EXPECT_EQ(demo.transformer->vocabulary, 256);
    EXPECT_FALSE(demo.transformer->tied_head);
    EXPECT_FALSE(demo.transformer->dropout);
    EXPECT_EQ(demo.graph[demo.graph.layers() - 1].tied_parameters, 0);
  }
}

}  // namespace
}  // namespace stagecraft
