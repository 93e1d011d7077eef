// Sums over ranks of one process whose memory the copy engines of each other's GPUs can reach: for slices of one GPU,
// which cannot be members of one NCCL communicator, and for builds without NCCL.
//
// Each member sums its share of the elements, in the members' order, and then fetches the other shares: 2 (n-1)/n of
// the data arrives at each, as in a ring (Patarasu and Yuan 2009). The order of the additions is the same for every
// element and every member, so that all get the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/device.hpp"
#include "runtime/transport.hpp"

namespace stagecraft::cuda {

class PeerCollectives {
 public:
  // `exchange`: device memory for pieces on their way.
  PeerCollectives(Transport& transport, int gpu, std::span<std::byte> exchange, cudaStream_t stream)
      : transport_(transport), gpu_(gpu), exchange_(exchange), stream_(stream) {}

  // All members call these with equal sizes. The stream does the work; a call waits only for the other members' calls.
  // Member i's share is elements (or bytes) [i * share, (i + 1) * share), as far as there are so many.
  // REQUIRES of all: members holds this worker once; shares of floats are multiples of 64.
  //
  // data becomes the sum over the members' data.
  void sum(std::span<const int> members, const MessageTag& tag, float* data, std::int64_t count);
  // The own share becomes the sum, the others stay as they are.
  void reduce_scatter(std::span<const int> members, const MessageTag& tag, float* data, std::int64_t count,
                      std::int64_t share);
  // Every member's share is copied to all.
  void all_gather(std::span<const int> members, const MessageTag& tag, std::byte* data, std::int64_t bytes,
                  std::int64_t share);
  // Between steps, when nobody waits for an event any more.
  void forget_events() { next_event_ = 0; }

 private:
  // What a member tells the others: where its data is, and when it may be read.
  struct Offer {
    const std::byte* data = nullptr;
    int gpu = 0;
    cudaEvent_t ready = nullptr;
  };
  std::vector<Offer> meet(std::span<const int> members, const MessageTag& tag, const std::byte* data);
  // Bytes [first, first + bytes) of what is offered.
  void fetch(void* to, const Offer& from, std::int64_t first, std::int64_t bytes);
  std::int64_t index_among(std::span<const int> members) const;

  Transport& transport_;
  int gpu_;
  std::span<std::byte> exchange_;
  cudaStream_t stream_;
  std::vector<kernels::cuda::Event> events_;  // of this step's meetings: others may still look at them
  std::size_t next_event_ = 0;
};

}  // namespace stagecraft::cuda
