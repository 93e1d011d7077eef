// The layers of a network: what each computes, moves and keeps.
//
// Amounts scale with samples and tokens, so that one description serves every micro-batch and sequence length. A layer
// is the smallest piece that a stage boundary may separate (a transformer block, an embedding, a head).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace stagecraft {

// An amount for b samples of s tokens: b * (per_sample + per_token * s + per_token_pair * s^2).
struct Amount {
  double per_sample = 0;
  double per_token = 0;
  double per_token_pair = 0;
  double at(std::int64_t samples, std::int64_t tokens) const {
    const auto s = static_cast<double>(tokens);
    return static_cast<double>(samples) * (per_sample + per_token * s + per_token_pair * s * s);
  }
  bool operator==(const Amount&) const = default;
};

// Kept memory: elements in the computation's precision, and bytes of fixed width (masks, fp32 statistics).
struct StashAmount {
  Amount elements;
  Amount bytes;
  bool operator==(const StashAmount&) const = default;
};

struct Layer {
  std::string name;                  // unique: "block.3"
  std::string kind;                  // layers of one kind cost the same; the key of profile tables
  std::int64_t parameters = 0;       // trained elements that this layer holds, tied ones included
  std::int64_t tied_parameters = 0;  // of those, shared with the layer named `tied_to`, which owns them
  std::string tied_to;               // empty: nothing shared
  Amount matmul_flops;               // products with weights: forward; input and weight gradient cost as much each
  Amount attention_flops;            // products without weights: forward; the input gradient costs twice as much
  Amount moved;                      // elements read and written by memory-bound operations in the forward
  StashAmount stash;                 // kept until the backward without recomputation
  StashAmount attention_stash;       // of which: dropped by selective recomputation (and by fused attention)
  Amount input;                      // elements of the layer's input: what full recomputation keeps instead of the
                                     // stash; zero (embedding, head): the layer is never recomputed
  // Where devices split the layer among them (tensor and sequence parallelism): elements that the gathers and scatters
  // of its forward carry, in all, and how many these are; the backward has as many.
  Amount exchanged;
  int exchanges = 0;
  bool operator==(const Layer&) const = default;
};

struct Tensor {
  Amount elements;  // what the edge carries, in the computation's precision
  bool operator==(const Tensor&) const = default;
};

// A DAG of layers with their tensors (layer_graph.hpp).
class LayerGraph;
using LayerId = std::size_t;  // a vertex: 0 .. number of layers - 1

}  // namespace stagecraft
