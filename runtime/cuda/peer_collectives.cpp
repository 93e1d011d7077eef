#include "runtime/cuda/peer_collectives.hpp"

#include <algorithm>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {
namespace {

constexpr std::int64_t granularity = 64;  // floats: shares and pieces start at aligned addresses

template <class T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

}  // namespace

// Everybody's offer, in the members' order; the stream waits until all are ready.
std::vector<PeerCollectives::Offer> PeerCollectives::meet(std::span<const int> members, const MessageTag& tag,
                                                          const std::byte* data) {
  if (next_event_ == events_.size()) events_.emplace_back();
  const cudaEvent_t ready = events_[next_event_++].get();
  STAGECRAFT_CUDA_CHECK(cudaEventRecord(ready, stream_));
  Offer own{data, gpu_, ready};
  for (const int member : members) {
    if (member != transport_.worker()) transport_.send(member, tag, bytes_of(own));
  }
  std::vector<Offer> offers;
  for (const int member : members) {
    Offer& offer = offers.emplace_back(own);
    if (member == transport_.worker()) continue;
    transport_.receive(member, tag, bytes_of(offer));
    STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(stream_, offer.ready, 0));
  }
  return offers;
}

void PeerCollectives::fetch(void* to, const Offer& from, std::int64_t first, std::int64_t bytes) {
  STAGECRAFT_CUDA_CHECK(
      cudaMemcpyPeerAsync(to, gpu_, from.data + first, from.gpu, static_cast<std::size_t>(bytes), stream_));
}

std::int64_t PeerCollectives::index_among(std::span<const int> members) const {
  return std::find(members.begin(), members.end(), transport_.worker()) - members.begin();
}

void PeerCollectives::sum(std::span<const int> members, const MessageTag& tag, float* data, std::int64_t count) {
  const auto n = static_cast<std::int64_t>(members.size());
  const std::int64_t share = (count + n * granularity - 1) / (n * granularity) * granularity;
  constexpr std::int64_t float_bytes = sizeof(float);
  reduce_scatter(members, tag, data, count, share);
  all_gather(members, tag, reinterpret_cast<std::byte*>(data), count * float_bytes, share * float_bytes);
}

void PeerCollectives::reduce_scatter(std::span<const int> members, const MessageTag& tag, float* data,
                                     std::int64_t count, std::int64_t share) {
  constexpr std::int64_t float_bytes = sizeof(float);
  const std::int64_t own = index_among(members);
  const auto half = static_cast<std::int64_t>(exchange_.size()) / 2 / float_bytes / granularity * granularity;
  auto* const total = reinterpret_cast<float*>(exchange_.data());
  float* const arrived = total + half;

  const std::vector<Offer> offers = meet(members, tag, reinterpret_cast<const std::byte*>(data));
  const std::int64_t end = std::min((own + 1) * share, count);
  for (std::int64_t first = std::min(own * share, count); first < end; first += half) {
    const std::int64_t piece = std::min(half, end - first);
    fetch(total, offers.front(), first * float_bytes, piece * float_bytes);
    for (std::size_t m = 1; m < offers.size(); ++m) {
      const bool is_own = static_cast<std::int64_t>(m) == own;
      if (!is_own) fetch(arrived, offers[m], first * float_bytes, piece * float_bytes);
      kernels::cuda::accumulate(total, is_own ? data + first : arrived, piece, stream_);
    }
    kernels::cuda::copy(data + first, total, piece, stream_);
  }
  // Nobody changes its data before all have read it.
  meet(members, tag, reinterpret_cast<const std::byte*>(data));
}

void PeerCollectives::all_gather(std::span<const int> members, const MessageTag& tag, std::byte* data,
                                 std::int64_t bytes, std::int64_t share) {
  const std::int64_t own = index_among(members);
  const std::vector<Offer> offers = meet(members, tag, data);
  for (std::int64_t m = 0; m < static_cast<std::int64_t>(offers.size()); ++m) {
    const std::int64_t first = std::min(m * share, bytes), end = std::min((m + 1) * share, bytes);
    if (m != own && first < end) fetch(data + first, offers[static_cast<std::size_t>(m)], first, end - first);
  }
  // Nobody changes its share before all have fetched it.
  meet(members, tag, data);
}

}  // namespace stagecraft::cuda
