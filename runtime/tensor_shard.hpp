// How tensor parallelism shares a network among the shards of a rank: which part of every trained tensor a shard holds.
//
// Shoeybi et al. 2019 (arXiv 1909.08053), section 3: the products into attention and MLP by rows of their matrices
// (whole heads; gate and up alike), those back into the residual stream by columns, the tables of tokens and of the
// head by rows of the vocabulary. With sequence parallelism (Korthikanti et al. 2022, arXiv 2205.05198, section 4.2.2)
// norms and residual stream are shared by rows of the micro-batch as well.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/network/network.hpp"
#include "runtime/parameters.hpp"

namespace stagecraft {

// One of `count` shards.
struct TensorShard {
  int count = 1;
  int index = 0;
  bool sequence_parallel = false;
  // Rows of a micro-batch of `rows` that the shard has in the residual stream; equal on all shards.
  std::int64_t own_rows(std::int64_t rows) const { return sequence_parallel ? rows / count : rows; }
};

// [first, last) of `size` things, of which every shard but the last ones takes size / count, rounded up.
struct ShardRange {
  std::int64_t first = 0, last = 0;
  std::int64_t size() const { return last - first; }
};
ShardRange shard_range(std::int64_t size, const TensorShard& shard);

// Why the network cannot be shared among so many: "kv_heads: expected a multiple of 4 (tensor), got 2"; empty when it
// can. REQUIRES: a network without experts.
std::string tensor_parallel_fault(const Transformer& transformer, int count);

// The network as a shard runs it: its heads, its part of the MLP and of the vocabulary. layer_parameters() of it are
// the tensors that the shard holds. REQUIRES: no tensor_parallel_fault().
Transformer transformer_of(const Transformer& transformer, const TensorShard& shard);

// Which elements of a tensor a shard holds, as runs of neighbours in both.
class TensorSlice {
 public:
  TensorSlice(const Parameter& whole, const TensorShard& shard);
  std::int64_t count() const { return count_; }  // elements held
  // Copies between the whole tensor and what the shard holds of it.
  void take(std::span<const float> whole, std::span<float> held) const;
  void put(std::span<const float> held, std::span<float> whole) const;

 private:
  struct Run {
    std::int64_t whole, held, count;
  };
  void add(std::int64_t first, std::int64_t count);

  std::vector<Run> runs_;
  std::int64_t count_ = 0;
};

// A trained tensor of which a worker holds all, or its shard's slice.
struct HeldParameter {
  Parameter parameter;  // all of it
  TensorSlice slice;
  bool copy = false;  // of a table that another rank owns: equal at all times
};
// Of layers [first, last) in the order of layer_parameters(), and behind them, with `table_copy`, the token table.
std::vector<HeldParameter> held_parameters(const Transformer& transformer, std::int64_t first, std::int64_t last,
                                           const TensorShard& shard, bool table_copy);

}  // namespace stagecraft
