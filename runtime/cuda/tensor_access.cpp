#include "runtime/cuda/tensor_access.hpp"

#include <algorithm>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {
namespace {

void copy(std::byte* to, std::span<const float> from, cudaStream_t stream) {
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream));
}

}  // namespace

TensorAccess::TensorAccess(const RankLayout& layout, const WorkerPlace& place, int replicas, std::byte* arena,
                           cudaStream_t stream)
    : layout_(layout), replica_(place.replica), replicas_(replicas), arena_(arena), stream_(stream) {
  for (const RankLayout::Stage& stage : layout.stages) {
    for (std::size_t i = 0; i < stage.held.size(); ++i) {
      parameters_.push_back(stage.held[i]);
      places_.push_back({&stage, &stage.layout.entries[i]});
    }
  }
}

bool TensorAccess::is_shared(const Where& where, int state) const {
  return where.stage->layout.buckets.front().is_sharded() && (state >= 0 || where.stage->has_masters());
}

std::byte* TensorAccess::address(const Where& where, int state, std::int64_t first) const {
  const RankLayout::Stage& stage = *where.stage;
  if (state < 0 && !stage.has_masters()) return arena_ + stage.masters + (where.entry->offset + first) * 4;
  const std::int64_t slab = state < 0 ? stage.masters : stage.states[static_cast<std::size_t>(state)];
  const KeptElements elements = kept(where);
  return arena_ + slab + (elements.state + first - elements.first) * 4;
}

std::vector<Executor::Share> TensorAccess::shares(std::size_t parameter, int state) const {
  const Where& where = places_[parameter];
  if (!is_shared(where, state)) return {};
  std::vector<Executor::Share> all;
  for (int replica = 0; replica < replicas_; ++replica) {
    const KeptElements elements = kept_elements(where.stage->layout, *where.entry, replica);
    // Without the padding.
    const std::int64_t last = std::min(elements.last, where.entry->parameter.count());
    if (elements.first < last) all.push_back({replica, elements.first, last});
  }
  return all;
}

void TensorAccess::read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const {
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to.data(), address(places_[parameter], state, first), to.size_bytes(),
                                        cudaMemcpyDeviceToHost, stream_));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void TensorAccess::write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) {
  const Where& where = places_[parameter];
  if (is_shared(where, state)) return write_shared(where, state, from);
  copy(address(where, state, first), from, stream_);
  if (state < 0 && where.stage->has_masters()) {
    // The whole tensor: a piece may start anywhere.
    const auto count = static_cast<std::int64_t>(from.size());
    std::byte* const weights = arena_ + where.stage->weights + where.entry->offset * 2;
    kernels::cuda::cast(reinterpret_cast<Bf16*>(weights), reinterpret_cast<const float*>(address(where, state, 0)),
                        first == 0 ? (count + 7) / 8 * 8 : where.entry->elements, stream_);
  }
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

// A whole tensor, of which this replica keeps a part: all of it passes through the memory for sums.
void TensorAccess::write_shared(const Where& where, int state, std::span<const float> from) {
  const KeptElements elements = kept(where);
  const auto count = static_cast<std::int64_t>(from.size());
  const auto part = [&](std::int64_t first, std::int64_t last) {
    return from.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
  };
  if (const std::int64_t last = std::min(elements.last, count); elements.first < last) {
    copy(address(where, state, elements.first), part(elements.first, last), stream_);
  }
  std::byte* const piece = arena_ + layout_.exchange;
  auto* const weights = reinterpret_cast<Bf16*>(arena_ + where.stage->weights) + where.entry->offset;
  for (std::int64_t first = 0; state < 0 && first < count; first += layout_.exchange_bytes / 4) {
    const std::int64_t size = std::min(layout_.exchange_bytes / 4, count - first);
    copy(piece, part(first, first + size), stream_);
    kernels::cuda::cast(weights + first, reinterpret_cast<const float*>(piece), (size + 7) / 8 * 8, stream_);
  }
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

}  // namespace stagecraft::cuda
