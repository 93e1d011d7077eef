// A range of a network's layers on one device: runs them forward and backward, a micro-batch at a time.
//
// Several micro-batches may be in flight; each has a slab with its tokens, the inputs of its layers and what they keep
// (with full recomputation only the inputs). Slabs come from the pool and go back after the weight gradient.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "runtime/cpu/module.hpp"
#include "runtime/cpu/parameters.hpp"
#include "runtime/cpu/stage_layout.hpp"
#include "runtime/memory_pool.hpp"

namespace stagecraft::cpu {

// How long one layer took in the last call that ran it, seconds.
struct LayerTimes {
  double forward = 0;
  double recompute = 0;
  double backward_input = 0;
  double backward_weight = 0;
};

class Stage {
 public:
  // `shared_table`: where the token table is when another stage of this rank owns it; else a tied head outside the
  // embedding's stage keeps a copy. `group`: the shards of the spec, which run the stage together.
  Stage(const StageSpec& spec, std::optional<ParameterView> shared_table, MemoryPool& pool, ShardGroup group = {});
  Stage(const Stage&) = delete;  // the modules know where its group is
  Stage& operator=(const Stage&) = delete;

  ParameterStore& parameters() { return *parameters_; }
  const ParameterStore& parameters() const { return *parameters_; }
  // The token table and its gradient when this stage has it, owned or a copy.
  const ParameterStore::Entry* table() const { return table_; }

  bool has_embedding() const { return spec_.has_embedding(); }
  bool has_head() const { return spec_.has_head(); }
  const StageLayout& layout() const { return layout_; }
  // REQUIRES: layout().workspace floats that nobody uses during a call of this stage.
  void set_workspace(float* workspace) { workspace_ = workspace; }

  // Takes the slab of a micro-batch. REQUIRES: it is not in flight.
  void open(std::int64_t microbatch);
  // Of an open micro-batch: where its input goes, (n, C); null with the embedding.
  float* input(std::int64_t microbatch);
  // Tokens for the embedding and targets for the head, (N) each; empty where there is none.
  std::span<std::int32_t> tokens(std::int64_t microbatch);
  std::span<std::int32_t> targets(std::int64_t microbatch);

  // `output`, (n, C), null with the head. Returns the mean loss with the head, else 0.
  double forward(std::int64_t microbatch, float* output);
  // d_output null with the head, d_input null with the embedding. Both ways give the same bits.
  void backward(std::int64_t microbatch, const float* d_output, float* d_input);
  void backward_input(std::int64_t microbatch, const float* d_output, float* d_input);
  void backward_weight(std::int64_t microbatch);
  // Gives the slab back without a backward.
  void discard(std::int64_t microbatch);

  // By layer of the stage.
  const std::vector<LayerTimes>& last_times() const { return times_; }

  // Once a step, before anybody else sees the gradients: completes those of norms of which every shard saw its own
  // rows.
  void sum_shard_gradients();

 private:
  void make_parameters(std::optional<ParameterView> shared_table, MemoryPool& pool);
  Pass pass(const StageLayout::Layer& layer, std::int64_t microbatch);
  Buffer& cache(std::int64_t microbatch) { return caches_[static_cast<std::size_t>(microbatch / spec_.shape.slices)]; }
  std::span<std::int32_t> integers(std::int64_t microbatch, std::int64_t offset);

  StageSpec spec_;
  MemoryPool& pool_;
  ShardGroup group_;
  std::unique_ptr<ParameterStore> parameters_;
  std::vector<std::vector<ParameterView>> views_;  // by layer of the stage
  const ParameterStore::Entry* table_ = nullptr;
  Buffer rope_table_;
  StageLayout layout_;
  std::vector<std::unique_ptr<Module>> modules_;  // by layer
  std::vector<LayerTimes> times_;                 // by layer
  float* workspace_ = nullptr;
  std::vector<Buffer> slabs_, splits_;  // by micro-batch or slice
  std::vector<Buffer> caches_;          // by micro-batch, with slices
};

}  // namespace stagecraft::cpu
