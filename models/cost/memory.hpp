// What training keeps in memory: bytes a parameter, and activations kept for the backward.
//
// Both cost models use it, so that roofline and profile agree on weights and optimizer. docs/cost_model.md, "Memory".
#pragma once

#include "models/cost/cost.hpp"

namespace stagecraft {

// Bytes a parameter. fp32 and tf32 train in fp32. bf16, fp16 and fp8 keep weights in that precision, accumulate
// gradients in fp32, and keep fp32 master weights with the optimizer. AdamW has two fp32 moments, SGD one (momentum).
struct ParameterBytes {
  Bytes weight;
  Bytes gradient;
  Bytes optimizer_state;
  Bytes touched;  // read and written by one optimizer step, the zeroing of the gradient included
};
ParameterBytes parameter_bytes(DataType precision, Optimizer optimizer);

// Whether the layer is a block: it says what its input is (Layer::input), which is all it need keep.
bool may_recompute(const Layer& layer);
// Whether full recomputation applies: the workload asks for it and the layer may.
bool recomputed_fully(const Layer& layer, const Workload& workload);
// Whether the attention core is repeated: selective recomputation of a layer that keeps one, unfused.
bool attention_recomputed(const Layer& layer, const Workload& workload);

// Kept from a micro-batch's forward to its backward (Korthikanti et al. 2022, section 4 and 5).
Bytes stash_bytes(const Layer& layer, const Workload& workload);

// Held while the layer's backward runs: what recomputation brings back, and the gradients of its output and its input
// (taken to be as large as Layer::input).
Bytes workspace_bytes(const Layer& layer, const Workload& workload);

}  // namespace stagecraft
