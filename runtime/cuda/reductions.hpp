// The sums of a rank's gradients over other ranks, and with a sharded optimizer the gathering of what its replicas
// updated. Between whole GPUs by NCCL, on a stream of their own beside the backward; else by peer copies, when all of
// the backward has been enqueued.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "runtime/cuda/device.hpp"
#include "runtime/cuda/nccl.hpp"
#include "runtime/cuda/peer_collectives.hpp"
#include "runtime/cuda/times.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

class Reductions {
 public:
  // `communicators` has all groups that layout.reductions sum over NCCL. Everything outlives it.
  Reductions(const ExecutorContext& context, const RankLayout& layout, const Device& device,
             const Communicators& communicators, std::byte* arena);

  // When nobody looks at the last step's events any more. `overlapped`: sums may start before the backward's end.
  void begin_step(bool overlapped);
  // Those that start during this computation of the rank's list, as buckets of its stage, last layers first.
  std::span<const Reduction> during(std::size_t computation) const;
  // Their gradients have been enqueued; the sum starts when they are there, unless this step has no overlap.
  void start(const Reduction& reduction, std::vector<Times>& times);
  // Starts what is left of the action; what the computation enqueues from now on waits for all of it.
  void finish(std::size_t action, std::vector<Times>& times);
  // After the update of a stage whose state its replicas share: fetches the others' part of the weights.
  void gather(const RankLayout::Stage& stage);

 private:
  std::size_t number_of(const Reduction& reduction) const {
    return static_cast<std::size_t>(&reduction - order_.data());
  }
  const RankLayout::Stage& stage_of(std::size_t action) const;
  void reduce(const Reduction& reduction);

  const ExecutorContext& context_;
  const RankLayout& layout_;
  const Device& device_;
  const Communicators& communicators_;
  std::byte* arena_;
  PeerCollectives peers_;
  const std::vector<Reduction>& order_;
  std::vector<std::optional<kernels::cuda::Event>> ready_;  // by number: when its gradients were there
  std::vector<bool> started_;                               // by number, in this step
  std::optional<kernels::cuda::Event> updated_, gathered_;
  bool overlapped_ = false;
};

}  // namespace stagecraft::cuda
