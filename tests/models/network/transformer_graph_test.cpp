#include <gmock/gmock.h>

#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"
#include "models/network/transformer_json.hpp"

namespace stagecraft {
namespace {

// Bytes in 16 bit.
double bytes(const StashAmount& stash, std::int64_t samples, std::int64_t tokens) {
  return 2 * stash.elements.at(samples, tokens) + stash.bytes.at(samples, tokens);
}

// Letters as in Korthikanti et al. 2022: s sequence, b micro-batch, h hidden, a heads, v vocabulary.
TEST(TransformerGraph, StashOfGpt3IsTheFormulaOfKorthikantiExactly) {
  const Network network = load_network("gpt3-175b");
  const std::int64_t s = 2048, b = 3, h = 12288, a = 96, v = 50257;
  const Layer& block = network.graph[7];
  EXPECT_EQ(bytes(block.stash, b, s), static_cast<double>(34 * s * b * h + 5 * a * s * s * b));
  EXPECT_EQ(bytes(block.attention_stash, b, s), static_cast<double>(5 * a * s * s * b));
  EXPECT_EQ(bytes(network.graph[0].stash, b, s), static_cast<double>(s * b * h));
  EXPECT_EQ(bytes(network.graph[97].stash, b, s), static_cast<double>(4 * s * b * h + 4 * s * b * v));
}

TEST(TransformerGraph, WithoutDropoutTheMasksAndTheirOutputVanish) {
  Transformer t = *load_network("gpt3-175b").transformer;
  t.dropout = false;
  const LayerGraph graph = build_graph(t);
  const std::int64_t s = 2048, b = 1, h = 12288, a = 96;
  EXPECT_EQ(bytes(graph[1].stash, b, s), static_cast<double>(32 * s * b * h + 2 * a * s * s * b));
  EXPECT_EQ(graph[1].stash.bytes, Amount{});
  EXPECT_EQ(graph[0].stash, StashAmount{});
}

// Korthikanti et al. 2022, appendix A: a layer's forward is 24 b s h^2 + 4 b s^2 h, the head's 2 b s h v.
TEST(TransformerGraph, WorkOfGpt3IsTheFormulaOfKorthikantiExactly) {
  const Network network = load_network("gpt3-175b");
  const double s = 2048, b = 2, h = 12288, v = 50257;
  EXPECT_EQ(network.graph[1].matmul_flops.at(2, 2048), 24 * b * s * h * h);
  EXPECT_EQ(network.graph[1].attention_flops.at(2, 2048), 4 * b * s * s * h);
  EXPECT_EQ(network.graph[97].matmul_flops.at(2, 2048), 2 * b * s * h * v);
  EXPECT_EQ(network.graph[0].matmul_flops, Amount{});
}

// C 8, heads 4 and kv_heads 2 of size 3 (A 12, K 6), F 10, V 7: small enough to count by hand.
Transformer small_llama() {
  return {.family = "llama",
          .layers = 1,
          .hidden = 8,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 3,
          .ffn = 10,
          .vocabulary = 7,
          .max_sequence = 5,
          .norm = NormKind::rms_norm,
          .position = PositionKind::rotary,
          .activation = ActivationKind::swiglu};
}

TEST(TransformerGraph, CountsGroupedQueriesAndSwiglu) {
  const LayerGraph graph = build_graph(small_llama());
  const Layer& block = graph[1];
  constexpr int attention = 8 * (12 + 2 * 6) + 12 * 8, mlp = 3 * 8 * 10;
  EXPECT_EQ(block.parameters, 2 * 8 + attention + mlp);
  EXPECT_EQ(block.matmul_flops, (Amount{.per_token = 2.0 * (attention + mlp)}));
  EXPECT_EQ(block.attention_flops, (Amount{.per_token_pair = 4 * 12}));
  // Inputs of the norms, of qkv; q, k, v; input of the output projection; input of the MLP, gate, up, product.
  EXPECT_EQ(block.stash.elements,
            (Amount{.per_token = 2 * 8 + 8 + (12 + 6 + 6) + 12 + 8 + 3 * 10, .per_token_pair = 4}));
  // Norms, residuals, rotation of q and k, activation; softmax.
  EXPECT_EQ(block.moved, (Amount{.per_token = 4 * 8 + 6 * 8 + 2 * (12 + 6) + 3 * 10, .per_token_pair = 2 * 4}));
  EXPECT_EQ(graph[0].parameters, 7 * 8);
  EXPECT_EQ(graph[0].moved, (Amount{.per_token = 2 * 8}));
  EXPECT_EQ(graph[2].parameters, 8 + 7 * 8);
  EXPECT_EQ(graph[2].moved, (Amount{.per_token = 2 * 8 + 2 * 7}));
}

TEST(TransformerGraph, CountsAllExpertsButComputesTheChosen) {
  Transformer t = small_llama();
  t.experts = 5;
  t.experts_per_token = 2;
  const Layer block = build_graph(t)[1];
  constexpr int attention = 8 * (12 + 2 * 6) + 12 * 8, expert = 3 * 8 * 10, router = 8 * 5;
  EXPECT_EQ(block.parameters, 2 * 8 + attention + router + 5 * expert);
  EXPECT_EQ(block.matmul_flops, (Amount{.per_token = 2.0 * (attention + router + 2 * expert)}));
  EXPECT_EQ(block.stash.elements.per_token, 2 * 8 + 8 + (12 + 6 + 6) + 12 + (8 + 5 + 2 * (8 + 3 * 10 + 8)));
}

// Two heads whose queries and keys have 3 elements without position and 2 with, and whose values have 4.
Transformer small_latent() {
  Transformer t = small_llama();
  t.heads = t.kv_heads = 2;
  t.head_size = 3 + 2;
  t.latent =
      LatentAttention{.query_rank = 6, .kv_rank = 7, .nope_head_size = 3, .rope_head_size = 2, .value_head_size = 4};
  return t;
}

TEST(TransformerGraph, CountsTheProjectionsOfLatentAttention) {
  Transformer t = small_latent();
  Layer block = build_graph(t)[1];
  constexpr int keys_values = 8 * (7 + 2) + 7 * 2 * (3 + 4), output = 2 * 4 * 8, mlp = 3 * 8 * 10;
  constexpr int queries = 8 * 6 + 6 * 2 * 5;
  EXPECT_EQ(block.parameters, 2 * 8 + queries + keys_values + output + (6 + 7) + mlp);
  EXPECT_EQ(block.matmul_flops, (Amount{.per_token = 2.0 * (queries + keys_values + output + mlp)}));
  EXPECT_EQ(block.attention_flops, (Amount{.per_token_pair = 2 * (2 * 5 + 2 * 4)}));
  // Inputs of both norms; of the narrow products; of their norms and of the wide products; q, k, v; input of the output
  // projection; input of the MLP, gate, up, product.
  EXPECT_EQ(block.stash.elements.per_token, 2 * 8 + 8 + 2 * (6 + 7) + (10 + 10 + 8) + 8 + 8 + 3 * 10);
  // Norms, residuals, norms of the narrow ones; q in and out, a key from its two parts; activation.
  EXPECT_EQ(block.moved.per_token, 4 * 8 + 6 * 8 + 2 * (6 + 7) + 2 * 10 + (2 * 3 + 2 + 10) + 2 * 8 + 3 * 10);
  EXPECT_EQ(block.exchanged.per_token, 3 * 8 + (6 + 7 + 2));

  t.latent->query_rank = 0;
  block = build_graph(t)[1];
  EXPECT_EQ(block.parameters, 2 * 8 + 8 * 2 * 5 + keys_values + output + 7 + mlp);
  EXPECT_EQ(block.exchanged.per_token, 4 * 8 + (7 + 2));
}

TEST(TransformerGraph, CountsSharedExpertsOfEveryTokenAndLeadingDenseBlocks) {
  Transformer t = small_llama();
  t.layers = 3;
  t.experts = 5;
  t.experts_per_token = 2;
  const Layer alone = build_graph(t)[1];
  t.shared_experts = 3;
  t.dense_layers = 2;
  t.dense_ffn = 50;
  const LayerGraph graph = build_graph(t);
  constexpr int attention = 8 * (12 + 2 * 6) + 12 * 8, expert = 3 * 8 * 10;
  EXPECT_EQ(graph[3].kind, "block");
  EXPECT_EQ(graph[3].parameters, alone.parameters + std::int64_t{3} * expert);
  EXPECT_EQ(graph[3].matmul_flops.per_token, alone.matmul_flops.per_token + 2 * 3 * expert);
  EXPECT_EQ(graph[3].stash.elements.per_token, alone.stash.elements.per_token + 3 * 3 * 10);
  EXPECT_EQ(graph[3].moved.per_token, alone.moved.per_token + 3 * 3 * 10 + 3 * 8);
  for (const LayerId dense : {1, 2}) {
    EXPECT_EQ(graph[dense].kind, "dense block");
    EXPECT_EQ(graph[dense].name, fmt::format("block.{}", dense - 1));
    EXPECT_EQ(graph[dense].parameters, 2 * 8 + attention + 3 * 8 * 50);
  }
  EXPECT_EQ(approximate_parameters(t), static_cast<double>(total_parameters(graph)));
}

TEST(TransformerGraph, CountsBiasesWhereTheyAre) {
  Transformer t = small_llama();
  const std::int64_t without = build_graph(t)[1].parameters;
  t.qkv_bias = true;
  EXPECT_EQ(build_graph(t)[1].parameters, without + 12 + 6 + 6);
  t.linear_bias = true;
  EXPECT_EQ(build_graph(t)[1].parameters, without + (12 + 6 + 6) + 8 + (2 * 10 + 8));
}

TEST(TransformerGraph, RegressionHeadHasOneOutput) {
  Transformer t = small_llama();
  t.head = HeadKind::regression;
  const Layer head = build_graph(t)[2];
  EXPECT_EQ(head.parameters, 8 + 8);
  EXPECT_EQ(head.matmul_flops, (Amount{.per_token = 2 * 8}));
  EXPECT_EQ(head.stash, (StashAmount{{.per_token = 2 * 8}, {.per_token = 4}}));
}

TEST(TransformerGraph, IsAChainOfEmbeddingBlocksAndHead) {
  const Network network = load_network("gpt2");
  ASSERT_EQ(network.graph.layers(), 14U);
  ASSERT_EQ(num_edges(*network.graph), 13U);
  EXPECT_EQ(network.graph[0].name, "embedding");
  EXPECT_EQ(network.graph[1].name, "block.0");
  EXPECT_EQ(network.graph[12].name, "block.11");
  EXPECT_EQ(network.graph[12].kind, network.graph[1].kind);
  EXPECT_EQ(network.graph[13].name, "head");
  EXPECT_EQ(network.graph[13].tied_parameters, 50257 * 768);
  EXPECT_EQ(network.graph[13].tied_to, "embedding");
  std::vector<bool> done(14, false);
  for (LayerId layer = 0; layer < 13; ++layer) {
    done[layer] = true;
    EXPECT_EQ(cut_elements(network.graph, done), (Amount{.per_token = 768}));
  }
}

}  // namespace
}  // namespace stagecraft
