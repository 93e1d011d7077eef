// The trained tensors of a network: their names, shapes and initial values, and one stage's share of them in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/network/network.hpp"
#include "runtime/memory_pool.hpp"
#include "runtime/trainer.hpp"

namespace stagecraft::cpu {

// Initialised as GPT-2 (Radford et al. 2019): normal with deviation 0.02, projections into the residual stream
// 0.02 / sqrt(2 L), biases 0, norm weights 1.
struct Parameter {
  std::string name;  // "block.3.mlp.up.weight": the same in every partition
  std::vector<std::int64_t> shape;
  float mean = 0;
  float deviation = 0;   // 0: every element is `mean`
  bool decayed = false;  // weight decay applies: matrices, not biases and norms
  std::int64_t count() const;
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

// One tensor of a module, in memory.
struct ParameterView {
  float* value = nullptr;
  float* gradient = nullptr;
};

// "first_moment", "second_moment" for AdamW, "velocity" for SGD: prefixes of the state's names in checkpoints.
std::vector<std::string> state_names(Optimizer optimizer);

// Values, gradients and optimizer state of a stage, each one slab.
class ParameterStore {
 public:
  struct Entry {
    Parameter parameter;
    std::int64_t offset = 0;  // in floats, into each slab
    bool copy = false;        // of a table that another rank owns: equal at all times, not to be counted twice
  };

  // `copies` are appended to `owned`. Gradients and state start at zero, values undefined until initialize or a load.
  ParameterStore(std::vector<Parameter> owned, std::vector<Parameter> copies, Optimizer optimizer, MemoryPool& pool);

  void initialize(std::uint64_t seed);

  const std::vector<Entry>& entries() const { return entries_; }
  // REQUIRES: position < entries().size().
  ParameterView view(std::size_t position) const;
  // The span of an entry in the values, gradients or a slab of optimizer state.
  std::span<float> values(const Entry& entry) const { return part(values_, entry); }
  std::span<float> gradients(const Entry& entry) const { return part(gradients_, entry); }
  std::span<float> all_values() const { return values_.span(); }
  std::span<float> all_gradients() const { return gradients_.span(); }
  // AdamW: first and second moment; SGD: velocity.
  int states() const { return static_cast<int>(state_.size()); }
  std::string state_name(int index) const { return state_names(optimizer_)[static_cast<std::size_t>(index)]; }
  std::span<float> state(int index, const Entry& entry) const {
    return part(state_[static_cast<std::size_t>(index)], entry);
  }

  // Sum of squares of the gradients, copies left out.
  double squared_gradient_norm() const;
  // Updates the values and sets the gradients to zero. Step counts from 1.
  void step(const OptimizerOptions& options, double rate, std::int64_t step, double gradient_scale);

 private:
  static std::span<float> part(const Buffer& slab, const Entry& entry);

  Optimizer optimizer_;
  std::vector<Entry> entries_;
  Buffer values_, gradients_;
  std::vector<Buffer> state_;
};

}  // namespace stagecraft::cpu
