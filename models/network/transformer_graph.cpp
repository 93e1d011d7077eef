// Costs of a transformer's layers. Derivations with sources: docs/cost_model.md; the letters here:
// C hidden, A = heads * head_size, K = kv_heads * head_size, F ffn, V vocabulary, E experts, k experts per token,
// s tokens of a sample, h heads, O = heads * value_head_size with latent attention and A without.
#include <cassert>

#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"
#include "models/network/transformer_json.hpp"

namespace stagecraft {
namespace {

// The parameter counts exist for two number types: int64 for the graph, double to see whether int64 would hold them.
template <class Number>
struct Parameters {
  explicit Parameters(const Transformer& t)
      : C(static_cast<Number>(t.hidden)),
        A(static_cast<Number>(t.heads) * static_cast<Number>(t.head_size)),
        K(static_cast<Number>(t.kv_heads) * static_cast<Number>(t.head_size)),
        O(static_cast<Number>(t.heads) * static_cast<Number>(t.latent ? t.latent->value_head_size : t.head_size)) {
    const auto F = static_cast<Number>(t.ffn);
    const auto V = static_cast<Number>(t.vocabulary);
    const auto inner = F * (t.activation == ActivationKind::swiglu ? 2 : 1);  // outputs of the MLP's first product
    norm = t.norm == NormKind::layer_norm ? 2 * C : C;                        // scale, and shift for layer_norm
    table = V * C;
    embedding = table + (t.position == PositionKind::learned ? static_cast<Number>(t.max_sequence) * C : 0);
    attention_weights = C * (A + 2 * K) + A * C;
    Number attention_norms = 0;  // scales
    if (t.latent) {
      const auto Q = static_cast<Number>(t.latent->query_rank);
      const auto R = static_cast<Number>(t.latent->kv_rank);
      const auto rope = static_cast<Number>(t.latent->rope_head_size);
      const auto nope = static_cast<Number>(t.heads) * static_cast<Number>(t.latent->nope_head_size);
      attention_weights = (Q > 0 ? C * Q + Q * A : C * A) + C * (R + rope) + R * (nope + O) + O * C;
      attention_norms = Q + R;
    }
    mlp_weights = C * inner + F * C;
    router_weights = C * static_cast<Number>(t.experts);
    const Number mlp = mlp_weights + (t.linear_bias ? inner + C : 0);
    const Number attention =
        attention_weights + attention_norms + (t.qkv_bias ? A + 2 * K : 0) + (t.linear_bias ? C : 0);
    const Number all = static_cast<Number>(t.experts) + static_cast<Number>(t.shared_experts);
    block = 2 * norm + attention + (t.experts > 0 ? router_weights + all * mlp : mlp);
    projection = t.head == HeadKind::language_model ? table : C;
  }
  Number C, A, K, O;
  Number norm, table, embedding, attention_weights, mlp_weights, router_weights, block, projection;
};

Layer embedding_layer(const Transformer& t) {
  const Parameters<std::int64_t> parameters(t);
  const auto C = static_cast<double>(t.hidden);
  const bool learned = t.position == PositionKind::learned;
  Layer layer;
  layer.name = layer.kind = "embedding";
  layer.parameters = parameters.embedding;
  // Reads the token's row, the position's row if there is one, and writes their sum; dropout reads and writes it again.
  layer.moved.per_token = (learned ? 3 : 2) * C + (t.dropout ? 2 * C : 0);
  // Only the dropout mask: the gradient of a table needs the token numbers, which the data keeps anyway.
  layer.stash.bytes.per_token = t.dropout ? C : 0;
  layer.exchanges = 1;  // the sums over the parts of the vocabulary are scattered
  layer.exchanged.per_token = C;
  return layer;
}

// Elements read and written once each by the operations that compute little: each norm, rotation, activation, softmax,
// dropout and residual sum as one pass over its inputs and outputs. Biases are added by the products' epilogue.
Amount block_moved(const Transformer& t) {
  const Parameters<double> p(t);
  const auto F = static_cast<double>(t.ffn);
  const auto h = static_cast<double>(t.heads);
  const auto k = static_cast<double>(t.experts_per_token);
  const double norms = 2 * (2 * p.C);                                          // each: C in, C out
  const double residuals = 2 * (3 * p.C);                                      // each: 2 C in, C out
  const double dropouts = t.dropout ? 2 * (2 * p.C) : 0;                       // each: C in, C out
  double rotation = t.position == PositionKind::rotary ? 2 * (p.A + p.K) : 0;  // queries and keys
  double ranks = 0;
  if (t.latent) {
    // Queries; keys, put together from each head's part without position and the rotated one that all heads share;
    const auto nope = static_cast<double>(t.heads * t.latent->nope_head_size);
    rotation = 2 * p.A + nope + static_cast<double>(t.latent->rope_head_size) + p.K;
    rotation += 2 * p.O;  // values, taken out of the product that computes both
    ranks = 2 * static_cast<double>(t.latent->query_rank + t.latent->kv_rank);  // their norms
  }
  const double activation = (t.activation == ActivationKind::swiglu ? 3 : 2) * F;  // F or 2 F in, F out
  double mlp = activation;
  if (t.experts > 0) {
    const double routing = 2 * static_cast<double>(t.experts);  // softmax over the experts: E in, E out
    const double dispatch = k * 2 * p.C;                        // a copy of the token for each of its experts
    const double combine = k * p.C + p.C;                       // their outputs in, the weighted sum out
    mlp = routing + dispatch + k * activation + combine;
    // The shared experts are one MLP as wide as all of them; its output is added.
    if (t.shared_experts > 0) mlp += static_cast<double>(t.shared_experts) * activation + 3 * p.C;
  }
  Amount moved;
  moved.per_token = norms + residuals + dropouts + ranks + rotation + mlp;
  // Softmax over the full square of scores of each head, and its dropout. A fused attention moves none of this.
  moved.per_token_pair = (t.dropout ? 4 : 2) * h;
  return moved;
}

// What the backward of a block needs, term by term after Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1. With
// A = K = C, F = 4 C, GELU and dropout this is, in 16 bit, s b C (34 + 5 h s / C) bytes: their equation 1.
StashAmount block_stash(const Transformer& t) {
  const Parameters<double> p(t);
  const auto F = static_cast<double>(t.ffn);
  const auto k = static_cast<double>(t.experts_per_token);
  const double norms = 2 * p.C;         // the input of each
  const double qkv_input = p.C;         // shared by the three products
  double qkv = p.A + 2 * p.K;           // queries and keys for their product, values for theirs
  const double attention_output = p.O;  // input of the output projection
  if (t.latent) {
    // The inputs of the two norms behind the narrow products and of the wide ones behind them.
    const double ranks = 2 * static_cast<double>(t.latent->query_rank + t.latent->kv_rank);
    qkv = ranks + p.A + p.K + p.O;
  }
  // Inputs of the first product, of the activation and of the last product. SwiGLU keeps gate, up and their product.
  const double inner = (t.activation == ActivationKind::swiglu ? 3 : 2) * F;
  double mlp = p.C + inner;
  if (t.experts > 0) {
    // The router reads the token once and keeps its probabilities; each chosen expert keeps a copy of the token, its
    // inner tensors, and its output, which the gradient of the router's weight on it needs.
    mlp = p.C + static_cast<double>(t.experts) + k * (p.C + inner + p.C);
    mlp += static_cast<double>(t.shared_experts) * inner;
  }
  StashAmount stash;
  stash.elements.per_token = norms + qkv_input + qkv + attention_output + mlp;
  // Masks of one byte an element behind the attention's and the MLP's last product.
  stash.bytes.per_token = t.dropout ? 2 * p.C : 0;
  return stash;
}

// The s x s tensors of each head: the softmax's output and, with dropout, its mask and its output. Without dropout the
// product with the values reads the softmax's output itself. (The softmax's backward needs no input.)
StashAmount attention_stash(const Transformer& t) {
  const auto h = static_cast<double>(t.heads);
  StashAmount stash;
  stash.elements.per_token_pair = t.dropout ? 2 * h : h;
  stash.bytes.per_token_pair = t.dropout ? h : 0;
  return stash;
}

Layer block_layer(const Transformer& t) {
  const Parameters<double> p(t);
  Layer layer;
  layer.kind = "block";
  layer.parameters = Parameters<std::int64_t>(t).block;
  // Two operations (multiply, add) a weight; of the experts only the chosen ones, and the router.
  const auto passed = static_cast<double>(t.experts_per_token + t.shared_experts);
  const double mlp = t.experts > 0 ? p.router_weights + passed * p.mlp_weights : p.mlp_weights;
  layer.matmul_flops.per_token = 2 * (p.attention_weights + mlp);
  // Queries with keys, and probabilities with values: 2 operations an element of A and of O, over the full square of
  // positions. Causal kernels may skip almost half of it; the efficiency of the device covers that.
  layer.attention_flops.per_token_pair = 2 * (p.A + p.O);
  layer.moved = block_moved(t);
  layer.stash = block_stash(t);
  layer.attention_stash = attention_stash(t);
  layer.stash.elements.per_token_pair += layer.attention_stash.elements.per_token_pair;
  layer.stash.bytes.per_token_pair += layer.attention_stash.bytes.per_token_pair;
  layer.input.per_token = p.C;
  // Korthikanti et al. 2022, section 4.2.2: a gather before and a scatter behind attention and MLP each.
  layer.exchanges = 4;
  layer.exchanged.per_token = 4 * p.C;
  if (t.latent) {
    // What is gathered before the attention is narrow: the products that make it so are repeated on every device.
    const auto queries = t.latent->query_rank > 0 ? static_cast<double>(t.latent->query_rank) : p.C;
    layer.exchanged.per_token = 3 * p.C + queries + static_cast<double>(t.latent->kv_rank + t.latent->rope_head_size);
  }
  return layer;
}

Layer head_layer(const Transformer& t) {
  const Parameters<double> p(t);
  const Parameters<std::int64_t> parameters(t);
  const auto outputs = t.head == HeadKind::language_model ? static_cast<double>(t.vocabulary) : 1.0;
  Layer layer;
  layer.name = layer.kind = "head";
  layer.parameters = parameters.norm + parameters.projection;
  if (t.tied_head) {
    layer.tied_parameters = parameters.table;
    layer.tied_to = "embedding";
  }
  layer.matmul_flops.per_token = 2 * p.C * outputs;
  // The norm, and the loss: every output read once, its probability (or error) written once.
  layer.moved.per_token = 2 * p.C + 2 * outputs;
  // Korthikanti et al. 2022, section 4.3: the inputs of the norm and of the projection, and the outputs in 32 bit for
  // the loss: 4 s b C (1 + V / C) bytes in 16 bit.
  layer.stash.elements.per_token = 2 * p.C;
  layer.stash.bytes.per_token = 4 * outputs;
  layer.exchanges = 1;  // its input is gathered
  layer.exchanged.per_token = p.C;
  return layer;
}

}  // namespace

double approximate_parameters(const Transformer& transformer) {
  const Parameters<double> p(transformer);
  const auto dense = static_cast<double>(transformer.dense_layers);
  const double blocks = (static_cast<double>(transformer.layers) - dense) * p.block +
                        (dense > 0 ? dense * Parameters<double>(dense_variant(transformer)).block : 0);
  return p.embedding + blocks + p.norm + p.projection;
}

Transformer dense_variant(Transformer t) {
  assert(t.dense_layers > 0);
  t.ffn = t.dense_ffn;
  t.experts = t.experts_per_token = t.shared_experts = t.dense_layers = t.dense_ffn = 0;
  return t;
}

LayerGraph build_graph(const Transformer& transformer) {
  const Tensor activation{{.per_token = static_cast<double>(transformer.hidden)}};
  LayerGraph graph;
  LayerId previous = add_vertex(embedding_layer(transformer), graph);
  const Layer block = block_layer(transformer);
  Layer dense = block;
  if (transformer.dense_layers > 0) {
    dense = block_layer(dense_variant(transformer));
    dense.kind = "dense block";
  }
  for (std::int64_t i = 0; i < transformer.layers; ++i) {
    Layer layer = i < transformer.dense_layers ? dense : block;
    layer.name = fmt::format("block.{}", i);
    const LayerId next = add_vertex(layer, graph);
    add_edge(previous, next, activation, graph);
    previous = next;
  }
  add_edge(previous, add_vertex(head_layer(transformer), graph), activation, graph);
  return graph;
}

}  // namespace stagecraft
