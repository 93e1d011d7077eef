#include "runtime/cuda/shard_group.hpp"

namespace stagecraft::cuda {

void ShardGroup::sum(void* data, std::int64_t count, Element type) const {
  shards_->all_reduce(data, count, type, stream_);
  settle();
}

void ShardGroup::gather(void* whole, const void* own, std::int64_t part, Element type) const {
  shards_->all_gather(whole, own, part, type, stream_);
  settle();
}

void ShardGroup::sum_scatter(void* own, const void* whole, std::int64_t part, Element type) const {
  shards_->reduce_scatter(own, whole, part, type, stream_);
  settle();
}

void ShardGroup::settle() const {
  if (!split() || !cautious_) return;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  STAGECRAFT_CUDA_CHECK(cudaStreamIsCapturing(stream_, &status));
  if (status == cudaStreamCaptureStatusNone) shards_->wait(stream_);
}

}  // namespace stagecraft::cuda
