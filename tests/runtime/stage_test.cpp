#include "runtime/cpu/stage.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/random.hpp"
#include "models/network/layer_graph.hpp"
#include "tests/runtime/plans.hpp"

namespace stagecraft::cpu {
namespace {

// A whole network as one stage, with parameters far from their small initial values, so that nothing is nearly linear.
struct WholeNetwork {
  explicit WholeNetwork(const Transformer& transformer, Recompute recompute = Recompute::none)
      : spec{.transformer = transformer,
             .layers = {0, transformer.layers + 2},
             .shape = {2, 6},
             .microbatches = 1,
             .recompute = recompute,
             .fused_attention = false,
             .optimizer = Optimizer::sgd,
             .gradient_scale = 1.0F / 12},
        stage(spec, std::nullopt, pool),
        workspace(pool.allocate(stage.layout().workspace, "workspace")) {
    stage.set_workspace(workspace.data());
    std::uint64_t tensor = 0;
    for (const auto& entry : stage.parameters().entries()) {
      const auto values = stage.parameters().values(entry);
      kernels::cpu::fill_normal(values.data(), static_cast<std::int64_t>(values.size()), {7, tensor++}, 0,
                                entry.parameter.mean, 0.25F);
    }
  }

  double loss() {
    stage.open(0);
    const auto tokens = stage.tokens(0), targets = stage.targets(0);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(i * 7 % 32);
      targets[i] = static_cast<std::int32_t>(i * 11 % 32);
    }
    return stage.forward(0, nullptr);
  }
  void backward() { stage.backward(0, nullptr, nullptr); }
  // The loss, leaving nothing in flight.
  double loss_only() {
    const double value = loss();
    backward();
    return value;
  }

  MemoryPool pool;
  StageSpec spec;
  Stage stage;
  Buffer workspace;
};

class StageTest : public testing::TestWithParam<Transformer> {};

// Along a direction d the loss changes by <gradient, d>. Directions: the gradient itself, where the signal is largest,
// and random ones, which see every component.
TEST_P(StageTest, GradientsEqualFiniteDifferencesOfTheLoss) {
  WholeNetwork network(GetParam());
  network.loss();
  network.backward();
  std::vector<std::vector<float>> gradients;
  for (const auto& entry : network.stage.parameters().entries()) {
    const auto g = network.stage.parameters().gradients(entry);
    gradients.emplace_back(g.begin(), g.end());
  }
  for (std::size_t t = 0; t < gradients.size(); ++t) {
    const auto& entry = network.stage.parameters().entries()[t];
    const auto& g = gradients[t];
    double g_length = 0;
    for (const float value : g) g_length += static_cast<double>(value) * value;
    g_length = std::sqrt(g_length);
    const std::span<float> w = network.stage.parameters().values(entry);
    for (const int seed : {0, 1, 2}) {
      std::vector<float> direction(g);
      if (seed > 0) {
        kernels::cpu::fill_normal(direction.data(), entry.parameter.count(), {static_cast<std::uint64_t>(seed), t}, 0,
                                  0, 1);
      }
      double length = 0, expected = 0;
      for (const float d : direction) length += static_cast<double>(d) * d;
      for (std::size_t i = 0; i < g.size(); ++i) expected += static_cast<double>(g[i]) * direction[i];
      ASSERT_GT(length, 0) << entry.parameter.name;
      const double step = 4e-3;
      const std::vector<float> saved(w.begin(), w.end());
      const auto at = [&](double offset) {
        for (std::size_t i = 0; i < saved.size(); ++i) {
          w[i] = saved[i] + static_cast<float>(offset / std::sqrt(length)) * direction[i];
        }
        return network.loss_only();
      };
      const double slope = (at(step) - at(-step)) / (2 * step);
      std::copy(saved.begin(), saved.end(), w.begin());
      EXPECT_NEAR(slope, expected / std::sqrt(length), 2e-2 * g_length + 1e-4) << entry.parameter.name << " " << seed;
    }
  }
}

TEST_P(StageTest, CountsTheNetworksParameters) {
  std::int64_t count = 0;
  for (const Parameter& parameter : network_parameters(GetParam())) count += parameter.count();
  EXPECT_EQ(count, total_parameters(build_graph(GetParam())));
}

TEST_P(StageTest, KeepsAboutWhatTheCostModelSays) {
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    const WholeNetwork network(GetParam(), recompute);
    const LayerGraph graph = build_graph(GetParam());
    double expected = 0;  // bytes
    for (LayerId id = 0; id < num_vertices(graph); ++id) {
      const Layer& layer = graph[id];
      const double input = layer.input.at(2, 6) * 4;
      const double whole = layer.stash.elements.at(2, 6) * 4 + layer.stash.bytes.at(2, 6);
      const double attention = layer.attention_stash.elements.at(2, 6) * 4 + layer.attention_stash.bytes.at(2, 6);
      if (recompute == Recompute::full && input > 0) {
        expected += input;
      } else {
        expected += whole - (recompute == Recompute::none ? 0 : attention);
      }
    }
    const double actual = static_cast<double>(network.stage.layout().slab) * 4;
    EXPECT_GE(actual, expected);
    // Tokens, the norms' statistics and the alignment come on top.
    EXPECT_LE(actual, expected * 1.15 + 1000) << static_cast<int>(recompute);
  }
}

std::vector<Transformer> networks() {
  std::vector<Transformer> list = {tiny_gpt(), tiny_gpt(true), tiny_llama(), tiny_llama(true)};
  list.push_back(tiny_llama());
  list.back().qkv_bias = true;
  list.back().head = HeadKind::regression;
  return list;
}
INSTANTIATE_TEST_SUITE_P(Networks, StageTest, testing::ValuesIn(networks()));

}  // namespace
}  // namespace stagecraft::cpu
