// A range of a network's layers on one GPU: enqueues them forward and backward, a micro-batch at a time.
//
// Where a micro-batch's tensors are is the caller's choice, by the slab's number; the layout has fixed all addresses
// before, so that every call can be captured into a graph and replayed.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/cuda/operations.hpp"

namespace stagecraft::cuda {

// The parts of the arena that the stages of a rank share.
struct Workspace {
  std::byte *ping = nullptr, *pong = nullptr;  // gradients between two layers
  std::byte *gradients = nullptr, *recomputed = nullptr, *scratch = nullptr;
  const float* rope_table = nullptr;  // null with learned positions
  StepState* step_state = nullptr;
};

class Stage {
 public:
  // `shared_table`: where the token table is when another stage of the rank owns it. REQUIRES: `arena` outlives it.
  Stage(const RankLayout::Stage& place, std::byte* arena, const Workspace& workspace, const Engine& engine,
        const ParameterView* shared_table);

  const StageLayout& layout() const { return place_.layout; }
  const RankLayout::Stage& place() const { return place_; }
  ParameterView view(std::size_t entry) const;
  const ParameterEntry* table() const { return token_table_of(layout()); }

  // Chooses algorithms; `scratch` is overwritten.
  void prepare(std::span<std::byte> scratch) const;

  // Addresses in a slab.
  std::byte* slab(int number) const { return slabs_ + number * layout().slab_bytes; }
  std::byte* input(int slab_number) const { return slab(slab_number) + layout().layers.front().input; }
  std::byte* output(int slab_number) const { return slab(slab_number) + layout().output; }
  std::byte* d_output(int slab_number) const { return slab(slab_number) + layout().d_output; }
  std::int32_t* tokens(int slab_number) const { return integers(slab_number, layout().tokens); }
  std::int32_t* targets(int slab_number) const { return integers(slab_number, layout().targets); }

  // `output` null with the head; `d_input` null with the embedding.
  void forward(const Place& at, std::byte* output) const;
  // Layers [first, last) of the stage, which come after those behind them.
  void backward(const Place& at, std::byte* d_input, LayerSpan layers) const;
  void backward_input(const Place& at, std::byte* d_input) const;
  void backward_weight(const Place& at, LayerSpan layers) const;

 private:
  std::int32_t* integers(int slab_number, std::int64_t offset) const;
  Pass pass(std::size_t layer, const Place& at) const;
  std::byte* split(int number) const { return splits_ + number * layout().split_bytes; }
  // The gradient of a layer's output while I and W are apart.
  const std::byte* d_output_of(std::size_t layer, const Place& at) const;

  RankLayout::Stage place_;
  std::byte *arena_, *slabs_, *splits_, *caches_;
  Workspace workspace_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace stagecraft::cuda
