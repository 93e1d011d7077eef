#include "runtime/cuda/all_reduce.hpp"

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
std::vector<AllReduce::Offer> AllReduce::meet(std::span<const int> members, const MessageTag& tag, const float* data) {
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

void AllReduce::fetch(float* to, const Offer& from, std::int64_t first, std::int64_t count) {
  const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
  STAGECRAFT_CUDA_CHECK(cudaMemcpyPeerAsync(to, gpu_, from.data + first, from.gpu, bytes, stream_));
}

void AllReduce::sum(std::span<const int> members, const MessageTag& tag, float* data, std::int64_t count) {
  const auto n = static_cast<std::int64_t>(members.size());
  if (n == 1) return;
  const std::int64_t share = (count + n * granularity - 1) / (n * granularity) * granularity;
  const auto first_of = [&](std::int64_t member) { return std::min(member * share, count); };
  const auto own =
      static_cast<std::int64_t>(std::find(members.begin(), members.end(), transport_.worker()) - members.begin());
  const auto half = static_cast<std::int64_t>(exchange_.size() / 2 / sizeof(float)) / granularity * granularity;
  auto* const total = reinterpret_cast<float*>(exchange_.data());
  float* const arrived = total + half;

  std::vector<Offer> offers = meet(members, tag, data);
  for (std::int64_t first = first_of(own); first < first_of(own + 1); first += half) {
    const std::int64_t piece = std::min(half, first_of(own + 1) - first);
    fetch(total, offers.front(), first, piece);
    for (std::int64_t m = 1; m < n; ++m) {
      if (m != own) fetch(arrived, offers[static_cast<std::size_t>(m)], first, piece);
      kernels::cuda::accumulate(total, m == own ? data + first : arrived, piece, stream_);
    }
    kernels::cuda::copy(data + first, total, piece, stream_);
  }
  offers = meet(members, tag, data);
  for (std::int64_t m = 0; m < n; ++m) {
    if (m == own || first_of(m) == first_of(m + 1)) continue;
    fetch(data + first_of(m), offers[static_cast<std::size_t>(m)], first_of(m), first_of(m + 1) - first_of(m));
  }
  // Nobody changes its share before all have fetched it.
  meet(members, tag, data);
}

}  // namespace stagecraft::cuda
