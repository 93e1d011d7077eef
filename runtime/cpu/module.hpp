// The layers of a transformer as code: forward, input gradient and weight gradient, each callable on its own.
//
// A module owns no memory. It reads weights through the views it was made with; what it keeps for the backward goes to
// the `stash`, what the input gradient leaves for the weight gradient to `gradients`, and neither is looked at
// elsewhere. Letters of shapes: N = micro-batch * sequence rows, n of them in the residual stream of this shard
// (StageSpec::own_rows), C hidden, V vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "runtime/cpu/parameters.hpp"
#include "runtime/cpu/shard_group.hpp"
#include "runtime/stage_spec.hpp"

namespace stagecraft::cpu {

// In floats, for one micro-batch.
struct ModuleSizes {
  std::int64_t stash = 0;      // from forward to weight gradient, the layer's input not counted
  std::int64_t gradients = 0;  // from input gradient to weight gradient, the output's gradient not counted
  std::int64_t workspace = 0;  // within a call
  std::int64_t cache = 0;      // with slices: keys and values, and as much for their gradients, over all slices
};

// What a call works on.
struct Pass {
  const float* input = nullptr;          // (n, C); the embedding has none
  float* output = nullptr;               // (n, C); the head has none. Null in a recomputation, which needs no output
  const std::int32_t* tokens = nullptr;  // (N) tokens of the embedding, targets of the head
  float* stash = nullptr;
  const float* d_output = nullptr;  // (n, C)
  float* d_input = nullptr;         // (n, C), overwritten
  float* gradients = nullptr;
  float* workspace = nullptr;
  std::int64_t slice = 0;    // which one of the samples' slices
  float* cache = nullptr;    // with slices: (B, whole sequence, 2K), what earlier slices left for this one
  float* d_cache = nullptr;  // likewise: what the backwards of later slices left for this one
};

class Module {
 public:
  virtual ~Module() = default;
  virtual ModuleSizes sizes() const = 0;
  // Returns the micro-batch's mean loss; 0 where there is none.
  virtual double forward(const Pass& pass) const = 0;
  // Input, stash, d_output as in the forward and what followed it.
  virtual void backward_input(const Pass& pass) const = 0;
  // After backward_input. Adds to the gradients of the parameters.
  virtual void backward_weight(const Pass& pass) const = 0;
};

// `parameters` in the order of layer_parameters; for a tied head the token table comes last. The shards of `group` call
// every function of a module together.

// Token and, when learned, position embedding.
std::unique_ptr<Module> make_embedding(const StageSpec& spec, const ShardGroup& group,
                                       std::span<const ParameterView> parameters);

// x2 = x + attention(norm(x)); y = x2 + mlp(norm(x2)). Unless the probabilities are kept (StageSpec::recompute none,
// no fused attention) the attention's softmax is recomputed in the backward, to the same bits. `rope_table`: as
// kernels/cpu/rope.hpp, (sequence, head_size); null with learned positions.
std::unique_ptr<Module> make_block(const StageSpec& spec, const ShardGroup& group,
                                   std::span<const ParameterView> parameters, const float* rope_table);

// Final norm, projection and loss. Language model: cross-entropy with the next token. Regression: squared error with
// the next token t as the number 2 t / (V - 1) - 1 in [-1, 1]. Gradients are those of gradient_scale * (sum over the
// rows).
std::unique_ptr<Module> make_head(const StageSpec& spec, const ShardGroup& group,
                                  std::span<const ParameterView> parameters);

}  // namespace stagecraft::cpu
