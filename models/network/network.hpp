// A network: a transformer description that we can run and price, or a hand-written graph that we can price.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/json_reader.hpp"
#include "models/network/layer.hpp"

namespace stagecraft {

enum class NormKind { layer_norm, rms_norm };
enum class PositionKind { learned, rotary };
enum class ActivationKind { gelu, swiglu };  // gelu is the tanh form; swiglu: silu(gate) * up
// language_model: cross-entropy over the vocabulary; regression: one output a token, mean squared error. No bias.
enum class HeadKind { language_model, regression };

// Multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434, section 2.1): keys and values of all heads come from
// one narrow vector, and so do the queries; what carries the position is beside it, of a key one part for all heads.
struct LatentAttention {
  std::int64_t query_rank = 0;      // width of that vector of the queries; 0: they come from the residual stream
  std::int64_t kv_rank = 0;         // of keys and values
  std::int64_t nope_head_size = 0;  // of a query or key, the part without position
  std::int64_t rope_head_size = 0;  // and the one with rotary position
  std::int64_t value_head_size = 0;
  bool operator==(const LatentAttention&) const = default;
};

// A decoder-only transformer. Pre-norm blocks: x += attention(norm(x)); x += mlp(norm(x)); a final norm before the
// head.
struct Transformer {
  std::string family;  // "gpt2", "llama", "mixtral", "deepseek_v3", ...: names in Hugging Face's sense
  std::int64_t layers = 0;
  std::int64_t hidden = 0;  // C
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;   // < heads: grouped-query attention
  std::int64_t head_size = 0;  // of queries and keys
  std::int64_t ffn = 0;        // inner width of the MLP, of each expert
  std::int64_t vocabulary = 0;
  std::int64_t max_sequence = 0;  // learned positions: size of their table; rotary: the longest sequence accepted
  bool tied_head = false;         // the head multiplies with the token embedding's table
  bool qkv_bias = false;
  bool linear_bias = false;  // on the attention output and the MLP
  bool dropout = false;      // as in the original training recipe: its masks count in the activation memory
  NormKind norm = NormKind::layer_norm;
  PositionKind position = PositionKind::learned;
  ActivationKind activation = ActivationKind::gelu;
  HeadKind head = HeadKind::language_model;
  double norm_epsilon = 1e-5;
  double rope_theta = 10000.0;
  std::int64_t experts = 0;  // 0: dense
  std::int64_t experts_per_token = 0;
  std::int64_t shared_experts = 0;  // every token passes them, beside those that it chooses
  std::int64_t dense_layers = 0;    // leading blocks with an MLP of width dense_ffn in the experts' place
  std::int64_t dense_ffn = 0;
  std::optional<LatentAttention> latent;  // kv_heads == heads
  bool operator==(const Transformer&) const = default;
};

// A LayerGraph as a value. It keeps Boost.Graph out of the many files that know networks but not graphs.
class GraphValue {
 public:
  GraphValue();                  // without layers
  GraphValue(LayerGraph graph);  // NOLINT(google-explicit-constructor): it stands for the graph
  GraphValue(const GraphValue& other);
  GraphValue(GraphValue&& other) noexcept;
  GraphValue& operator=(GraphValue other) noexcept;
  ~GraphValue();

  operator const LayerGraph&() const { return *graph_; }  // NOLINT(google-explicit-constructor)
  const LayerGraph& operator*() const { return *graph_; }
  LayerGraph& operator*() { return *graph_; }
  const Layer& operator[](LayerId layer) const;
  Layer& operator[](LayerId layer);
  std::size_t layers() const;

 private:
  std::unique_ptr<LayerGraph> graph_;
};

struct Network {
  std::string name;
  std::optional<Transformer> transformer;
  // Vertices of a transformer: 0 the embedding, 1..layers the blocks, layers+1 the head (final norm, projection, loss).
  GraphValue graph;
};

bool operator==(const Network& a, const Network& b);

// Of a network with leading dense blocks, the one of which all blocks are like those. REQUIRES: t.dense_layers > 0.
Transformer dense_variant(Transformer t);

// REQUIRES: a description that passed network_from_json or config import (dimensions positive and consistent).
LayerGraph build_graph(const Transformer& transformer);

// Our own format, a hand-written graph, or a Hugging Face config.json (told by "model_type"; unknown kinds are refused
// with the list of known ones). Throws bad_input.
Network network_from_json(const JsonValue& value, const std::string& default_name);
Json to_json(const Network& network);

// A preset's name, or the path of a JSON file (anything with a '/' or ending in ".json").
Network load_network(const std::string& name_or_path);
std::vector<std::string> network_presets();

}  // namespace stagecraft
