// What one layer costs on one device when a network is sharded: products, attention, element-wise operations, the
// collectives inside the layer, and what it keeps. Formulas and sources: docs/cost_model.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "models/cost/machine.hpp"
#include "models/layout.hpp"
#include "models/network/network.hpp"

namespace stagecraft {

// What is trained, whatever the layout.
struct TrainingJob {
  Transformer network;
  std::int64_t global_batch = 1;  // samples a step
  std::int64_t sequence = 1;      // tokens a sample
  DataType precision = DataType::bf16;
  Optimizer optimizer = Optimizer::adamw;
  bool fused_attention = true;  // no matrix of scores in memory
  bool fused_norm = true;       // a kernel for each norm, not one for each of its operations
  // Of attention without its kernel of today, where a publication says so:
  bool first_flash = false;   // fused by the first FlashAttention (Dao et al. 2022, arXiv 2205.14135), not the second
  bool eager_scores = false;  // not fused, and a kernel for each operation on the scores
  // Placed by hand, whatever the layout:
  std::vector<std::int32_t> stage_blocks;  // by stage; empty: as layouts say
  // By rank, of layouts with recomputed_layers = listed_layers.
  std::vector<std::int32_t> recomputed_blocks;
};

// One layer on one device, one micro-batch; seconds and bytes. Computation and communication apart.
struct LayerShard {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
  std::array<double, 3> recompute{};  // by Recompute: the repeated part of the forward, its communication apart
  double tensor_forward = 0;          // tensor-parallel communication
  double tensor_backward = 0;
  std::array<double, 3> tensor_recompute{};
  double context_forward = 0;
  double context_backward = 0;
  double expert_forward = 0;
  double expert_backward = 0;
  std::array<double, 3> stash{};  // bytes kept from forward to backward, by Recompute
  double workspace = 0;           // bytes while it runs
  double parameters = 0;          // on this device, replicated over data * context
  double expert_parameters = 0;   // on this device, replicated over expert_devices() / expert
};

struct Shard {
  LayerShard block;        // not of the leading dense ones
  LayerShard dense_block;  // of those
  LayerShard mean_block;   // of all of the network's
  LayerShard embedding;
  LayerShard head;
  double boundary = 0;  // bytes of a message between stages
};

// The blocks of a rank or stage as if each were their mean; of workspace the largest. The shard lives longer.
class MeanBlock {
 public:
  // Of so many blocks, `dense` of them dense ones.
  MeanBlock(const Shard& shard, double blocks, double dense) : block_(&shard.block) {
    if (dense > 0 && blocks > 0) mix(shard, dense / blocks);
  }
  const LayerShard& operator*() const { return mean_ ? *mean_ : *block_; }
  const LayerShard* operator->() const { return &**this; }

 private:
  void mix(const Shard& shard, double share);
  const LayerShard* block_;
  std::optional<LayerShard> mean_;
};

// Whether two layouts have the same shard: what shard_costs looks at.
bool same_shard(const ParallelLayout& a, const ParallelLayout& b);

// REQUIRES: the layout divides the network's heads, experts and tokens (StepModel::refuse).
Shard shard_costs(const TrainingJob& job, const Machine& machine, const ParallelLayout& layout);

// Peak rate of products in the job's precision.
double product_peak(const TrainingJob& job, const Machine& machine);
// Bytes of an activation: fp8 applies to products only, activations stay in 16 bits.
double activation_bytes(DataType precision);

// Devices that lie between neighbours of the dimension: the product of those inside it.
std::int64_t inner_devices(const ParallelLayout& layout, Dimension dimension);

// The devices that hold the same parameters, data x context of them; and which of expert_devices() share the experts
// out among them (`sharing`, the nearest) and hold the same ones (`alike`).
struct ReplicaGroups {
  GroupShape replicas, sharing, alike;
};
ReplicaGroups replica_groups(const Machine& machine, const ParallelLayout& layout);

// Blocks of a rank: all of them, and of those the ones that recompute and the network's leading dense ones. Of dense
// ones and others as large a share is taken to recompute.
struct RankBlocks {
  double all = 0;
  double repeated = 0;
  double dense = 0;
};

}  // namespace stagecraft
