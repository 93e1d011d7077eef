#include "runtime/cpu/shard_group.hpp"

#include "kernels/cpu/elementwise.hpp"
#include "runtime/collectives.hpp"

namespace stagecraft::cpu {
namespace {

constexpr MessageTag tag{Lane::tensor, 0, -1};

}  // namespace

void ShardGroup::sum(std::span<float> data) const { ring_all_reduce(*transport_, members_, tag, data, scratch_); }

void ShardGroup::gather(std::span<float> whole) const { ring_all_gather(*transport_, members_, tag, whole); }

void ShardGroup::sum_scatter(std::span<float> whole) const {
  ring_reduce_scatter(*transport_, members_, tag, whole, scratch_);
}

const float* ParallelRegion::enter(const float* x, float* buffer) const {
  if (!shard_.sequence_parallel) return x;
  kernels::cpu::copy(buffer + shard_.index * own_floats(), x, own_floats());
  group_->gather({buffer, static_cast<std::size_t>(buffer_floats())});
  return buffer;
}

void ParallelRegion::leave(float* y, float* product) const {
  if (!split()) return;
  if (!shard_.sequence_parallel) return group_->sum({y, static_cast<std::size_t>(own_floats())});
  group_->sum_scatter({product, static_cast<std::size_t>(buffer_floats())});
  kernels::cpu::copy(y, product + shard_.index * own_floats(), own_floats());
}

}  // namespace stagecraft::cpu
