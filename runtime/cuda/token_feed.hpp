// The tokens and targets of a rank's micro-batches, fetched for a step while the one before runs. They stay in host
// memory until a forward takes its own, in the order of the rank's forwards.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/cuda/pinned.hpp"
#include "runtime/cuda/stage.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

class TokenFeed {
 public:
  TokenFeed(const RankLayout& layout, const std::vector<Action>& actions, Fetch fetch, std::int64_t microbatches);

  // Fetches what the rank will need in a step: there is room for two steps.
  void fetch(std::int64_t step);
  // Where the step's first tokens, and its first targets, are: what StepState begins with.
  std::int32_t first_position(std::int64_t step) const { return static_cast<std::int32_t>(step % 2 * microbatches_); }
  // The next tokens to the embedding's slab, the next targets to the head's.
  // REQUIRES: the step has been fetched when the device gets there.
  void take(const Stage& stage, int slab, StepState& on_device, cudaStream_t stream) const;

 private:
  // What one stage takes: (2 steps, M, N), micro-batches in the order of its forwards.
  struct Queue {
    Queue(std::int64_t stage, const std::vector<Action>& actions, std::int64_t microbatches, std::int64_t rows);
    std::vector<std::int64_t> position_of;  // by micro-batch, within a step; -1: another rank's
    Pinned<std::int32_t> values;
  };
  std::span<std::int32_t> host(const Queue& queue, std::int64_t step, std::int64_t microbatch) const;

  Fetch fetch_;
  std::int64_t microbatches_, rows_;
  Queue tokens_, targets_;
  std::int64_t fetched_[2] = {-1, -1};  // which steps
};

}  // namespace stagecraft::cuda
