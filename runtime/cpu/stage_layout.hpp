// What a stage is made of, and the memory it will take.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/cpu/module.hpp"

namespace stagecraft::cpu {

// Sizes in floats and offsets of everything that a stage works with: known before any memory is taken.
struct StageLayout {
  struct Layer {
    ModuleSizes sizes;
    bool recomputed = false;
    std::int64_t input = -1;  // offsets into the slab; the embedding has no input, recomputed layers no stash
    std::int64_t stash = -1;
    std::int64_t d_output = -1, gradients = -1, recomputed_stash = -1;  // offsets into the split slab
    std::int64_t cache = 0;                                             // offset into the cache
  };
  std::int64_t parameters = 0;  // with copies of a tied table, which may turn out to be shared
  std::int64_t slab = 0;        // a micro-batch (with slices: a slice) in flight
  std::int64_t cache = 0;       // with slices: a micro-batch between the first forward and the last backward
  std::int64_t split = 0;       // a micro-batch between its input gradient and its weight gradient
  std::int64_t workspace = 0;   // shared by all stages of a rank
  std::int64_t rows = 0;        // N
  std::int64_t boundary = 0;    // the tensor between two stages, as this shard has it: (n, C)
  std::int64_t rope_table = 0;  // constants
  std::vector<Layer> layers;
  std::int64_t tokens = -1, targets = -1;                                       // offsets into the slab
  std::int64_t ping = 0, pong = 0, gradients = 0, recomputed = 0, scratch = 0;  // offsets into the workspace
};
StageLayout lay_out(const StageSpec& spec);

// What the stage holds of one layer, in floats: while a micro-batch is in flight, and during a call.
std::int64_t layer_stash(const StageLayout& layout, std::size_t layer);
std::int64_t layer_split(const StageLayout& layout, std::size_t layer);  // between input and weight gradient, apart
std::int64_t layer_workspace(const StageLayout& layout, std::size_t layer);

// The module of a layer of the stage. `parameters` as module.hpp says.
std::unique_ptr<Module> make_module(const StageSpec& spec, std::int64_t layer, const ShardGroup& group,
                                    std::span<const ParameterView> parameters, const float* rope_table);

}  // namespace stagecraft::cpu
