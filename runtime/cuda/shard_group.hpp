// The exchanges of a tensor-parallel layer, between the shards of a rank, each of which has a GPU. What enters and
// leaves is as on CPUs (runtime/cpu/shard_group.hpp); here it is enqueued behind the layer's kernels, on their stream,
// and captured into a graph with them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"
#include "runtime/cuda/nccl.hpp"
#include "runtime/cuda/operations.hpp"

namespace stagecraft::cuda {

// Sums and gathers over the shards; all of them make the same calls in the same order.
class ShardGroup {
 public:
  // A group of one.
  ShardGroup() = default;
  // Both outlive it.
  ShardGroup(Communicator& shards, cudaStream_t stream) : shards_(&shards), stream_(stream) {}

  bool split() const { return shards_ != nullptr; }
  // data (count) becomes the sum over the shards' data.
  void sum(void* data, std::int64_t count, Element type) const;
  // whole: (shards, part), of which `own` (part) is this shard's; it may be in its place already.
  void gather(void* whole, const void* own, std::int64_t part, Element type) const;
  // own (part) becomes this shard's part of the sum over the shards of `whole`, (shards, part). It may lie there.
  void sum_scatter(void* own, const void* whole, std::int64_t part, Element type) const;

  // While operations run for the first time and graphs are made, the host waits after every exchange: loading a kernel
  // or making a graph may wait for the device and hold a lock, which another shard needs to get to the exchange that
  // this device waits for.
  void set_cautious(bool cautious) { cautious_ = cautious; }
  // What it waits for: all that has been enqueued, unless it is being captured.
  void settle() const;

 private:
  Communicator* shards_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool cautious_ = true;
};

template <class T>
inline constexpr Element element_of = sizeof(T) == 2 ? Element::bf16 : Element::fp32;

template <class T>
class ParallelRegion {
 public:
  ParallelRegion(const StageSpec& spec, const Engine& engine)
      : shard_(spec.shard),
        group_(engine.shards),
        stream_(engine.stream()),
        own_elements_(spec.own_rows() * spec.transformer.hidden) {}

  bool split() const { return shard_.count > 1; }
  bool first() const { return shard_.index == 0; }
  const TensorShard& shard() const { return shard_; }
  const ShardGroup& group() const { return *group_; }

  // All rows, (N, C), of which x has this shard's: x itself, or the buffer.
  const T* enter(const T* x, T* buffer) const {
    if (!shard_.sequence_parallel) return x;
    group_->gather(buffer, x, own_elements_, element_of<T>);
    return buffer;
  }
  // Where to put the product, (N, C), that leave(y) is to sum: y itself, or the buffer.
  T* product(T* y, T* buffer) const { return shard_.sequence_parallel ? buffer : y; }
  // y, this shard's rows, from what product() gave.
  void leave(T* y, const T* product) const {
    if (!split()) return;
    if (!shard_.sequence_parallel) return group_->sum(y, own_elements_, element_of<T>);
    group_->sum_scatter(y, product, own_elements_, element_of<T>);
  }
  // The same, with a residual, (n, C), that is added.
  void leave(T* y, T* product, const T* residual) const {
    T* const own = shard_.sequence_parallel ? product + shard_.index * own_elements_ : y;
    leave(own, product);
    kernels::cuda::add(y, own, residual, own_elements_, stream_);
  }

 private:
  TensorShard shard_;
  const ShardGroup* group_;
  cudaStream_t stream_;
  std::int64_t own_elements_;
};

}  // namespace stagecraft::cuda
