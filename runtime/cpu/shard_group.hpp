// The exchanges of a tensor-parallel layer, between the shards of a rank.
//
// A layer's products work on all rows of a micro-batch (N) with the shard's part of the weights, and between them on
// what the residual stream has here: all N rows alike on every shard or, with sequence parallelism, N / shards rows.
//
//   enter   before a product into attention or MLP: sequence parallelism gathers the rows of all shards
//   leave   after a product back: the shards' products are summed; sequence parallelism leaves each with its own rows
//
// In the backward they change places: what left enters, with the gradient (f and g of Shoeybi et al. 2019, section 3;
// g and g-bar of Korthikanti et al. 2022, section 4.2.2).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/stage_spec.hpp"
#include "runtime/transport.hpp"

namespace stagecraft::cpu {

// Sums and gathers over the shards; all of them make the same calls in the same order.
class ShardGroup {
 public:
  // A group of one, or one of which only the sizes are asked.
  ShardGroup() = default;
  // `members`: the workers, by shard. `scratch`: collective_piece_floats that nobody uses during a call.
  ShardGroup(Transport& transport, std::vector<int> members, std::span<float> scratch)
      : transport_(&transport), members_(std::move(members)), scratch_(scratch) {}

  // data becomes the sum over the shards' data.
  void sum(std::span<float> data) const;
  // The shards' parts in one tensor, in their order; this shard's is in its place already.
  void gather(std::span<float> whole) const;
  // This shard's part of `whole` becomes the sum over the shards of that part; the other parts mean nothing after.
  void sum_scatter(std::span<float> whole) const;

 private:
  Transport* transport_ = nullptr;
  std::vector<int> members_;
  std::span<float> scratch_;
};

class ParallelRegion {
 public:
  // REQUIRES: the group outlives it and has the spec's shards, or is never used.
  ParallelRegion(const StageSpec& spec, const ShardGroup& group)
      : group_(&group), shard_(spec.shard), rows_(spec.shape.rows()), channels_(spec.transformer.hidden) {}

  bool split() const { return shard_.count > 1; }
  bool first() const { return shard_.index == 0; }
  const TensorShard& shard() const { return shard_; }
  const ShardGroup& group() const { return *group_; }
  std::int64_t own_rows() const { return shard_.own_rows(rows_); }
  std::int64_t own_floats() const { return own_rows() * channels_; }
  // Of the `buffer` that the calls below take.
  std::int64_t buffer_floats() const { return shard_.sequence_parallel ? rows_ * channels_ : 0; }

  // All rows, (N, C), of which x has this shard's: x itself, or the buffer.
  const float* enter(const float* x, float* buffer) const;
  // Where to put the product, (N, C), that leave(y) is to sum: y itself, or the buffer.
  float* product(float* y, float* buffer) const { return shard_.sequence_parallel ? buffer : y; }
  // y, this shard's rows, from what product() gave.
  void leave(float* y, float* product) const;

 private:
  const ShardGroup* group_;
  TensorShard shard_;
  std::int64_t rows_, channels_;
};

}  // namespace stagecraft::cpu
