// The tokens and targets of a rank's micro-batches, fetched for a step while the one before runs.
#pragma once

#include <cstdint>
#include <utility>

#include "runtime/cuda/pinned.hpp"
#include "runtime/cuda/stage.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

class TokenFeed {
 public:
  TokenFeed(const RankLayout& layout, Fetch fetch, std::int64_t microbatches);

  // Fetches what the rank will need in a step: there is room for two steps.
  void fetch(std::int64_t step);
  // Into the micro-batch's slab. REQUIRES: the step has been fetched.
  void upload(const Stage& stage, std::int64_t step, std::int64_t microbatch, int slab, cudaStream_t stream) const;

 private:
  // Tokens and targets, (N) each.
  std::pair<std::span<std::int32_t>, std::span<std::int32_t>> host(std::int64_t step, std::int64_t microbatch) const;

  Fetch fetch_;
  bool embedding_, head_;
  std::int64_t microbatches_, rows_;
  Pinned<std::int32_t> tokens_;         // (2 steps, M, tokens or targets, N)
  std::int64_t fetched_[2] = {-1, -1};  // which steps
};

}  // namespace stagecraft::cuda
