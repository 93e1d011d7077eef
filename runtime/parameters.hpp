// The trained tensors of a network: their names, shapes and initial values, whatever device they are on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/network/network.hpp"
#include "runtime/trainer.hpp"

namespace stagecraft {

// How tensor parallelism cuts a tensor (runtime/tensor_shard.hpp): not at all, by rows (the first dimension), each of
// its sections by itself, or by columns.
enum class Split : std::uint8_t { none, rows, columns };

// Initialised as GPT-2 (Radford et al. 2019): normal with deviation 0.02, projections into the residual stream
// 0.02 / sqrt(2 L), biases 0, norm weights 1.
struct Parameter {
  std::string name;  // "block.3.mlp.up.weight": the same in every partition
  std::vector<std::int64_t> shape;
  float mean = 0;
  float deviation = 0;   // 0: every element is `mean`
  bool decayed = false;  // weight decay applies: matrices, not biases and norms
  bool norm = false;     // of a norm
  Split split = Split::none;
  std::vector<std::int64_t> sections = {};  // of rows, for Split::rows: queries, keys and values; gate and up
  std::int64_t count() const {
    std::int64_t product = 1;
    for (const std::int64_t size : shape) product *= size;
    return product;
  }
};

inline constexpr const char* token_table = "embedding.tokens";

// What layer `layer` owns (0 the embedding, 1..L the blocks, L+1 the head), in a fixed order; a tied head does not own
// its table.
//   embedding  tokens (V, C); positions (maxT, C) when learned
//   block      attention_norm.{weight,bias} (C); attention.qkv.{weight,bias} (A + 2K, C); attention.output (C, A);
//              mlp_norm (C); mlp.up (F, C), for SwiGLU the gate's F rows before the up's; mlp.down (C, F)
//   head       norm (C); projection.weight (V, C) or (1, C)
std::vector<Parameter> layer_parameters(const Transformer& transformer, std::int64_t layer);

// All of the network's, in layer order: what a checkpoint holds.
std::vector<Parameter> network_parameters(const Transformer& transformer);

// The learning rate of a step (from 1): linear warm-up, then constant or cosine.
double learning_rate(const OptimizerOptions& options, std::int64_t step, std::int64_t last_step);

// "first_moment", "second_moment" for AdamW, "velocity" for SGD: prefixes of the state's names in checkpoints.
std::vector<std::string> state_names(Optimizer optimizer);

// The initial value of a tensor; it depends on its name and the seed alone. REQUIRES: parameter.count() floats;
// threads > 0.
void fill_initial(const Parameter& parameter, std::uint64_t seed, std::span<float> values, int threads = 1);

}  // namespace stagecraft
