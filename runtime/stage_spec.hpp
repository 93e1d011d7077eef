// A range of a network's layers as a rank runs them.
#pragma once

#include <cstdint>

#include "models/cost/cost.hpp"
#include "models/network/network.hpp"
#include "models/plan.hpp"
#include "runtime/tensor_shard.hpp"

namespace stagecraft {

struct Shape {
  std::int64_t microbatch = 1;  // samples
  std::int64_t sequence = 1;    // tokens a sample, or a slice of it
  std::int64_t slices = 1;      // a sample
  std::int64_t rows() const { return microbatch * sequence; }
  std::int64_t whole_sequence() const { return sequence * slices; }
};

struct StageSpec {
  Transformer transformer;  // as the shard runs it (transformer_of)
  LayerRange layers;        // 0 the embedding, 1..L the blocks, L+1 the head
  Shape shape;
  std::int64_t microbatches = 1;  // with slices: all slices of all micro-batches, numbered micro-batch * slices + slice
  Recompute recompute = Recompute::none;
  bool fused_attention = false;  // attention probabilities are never kept
  Optimizer optimizer = Optimizer::adamw;
  float gradient_scale = 1;  // of the head's summed loss
  DataType precision = DataType::fp32;
  bool deterministic = false;  // GPUs: attention's gradients are the same bits in every run
  TensorShard shard;
  std::int64_t first_token = 0;  // of the shard's part of the vocabulary

  bool has_embedding() const { return layers.first == 0; }
  // Of a micro-batch, in the residual stream of this shard.
  std::int64_t own_rows() const { return shard.own_rows(shape.rows()); }
  bool has_head() const { return layers.last == transformer.layers + 2; }
};

}  // namespace stagecraft
