#include "runtime/cuda/token_feed.hpp"

#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {

TokenFeed::TokenFeed(const RankLayout& layout, Fetch fetch, std::int64_t microbatches)
    : fetch_(std::move(fetch)),
      embedding_(layout.stages.front().spec.has_embedding()),
      head_(layout.stages.back().spec.has_head()),
      microbatches_(microbatches),
      rows_(layout.stages.front().spec.shape.rows()),
      tokens_(static_cast<std::size_t>(4 * rows_ * microbatches)) {}

std::pair<std::span<std::int32_t>, std::span<std::int32_t>> TokenFeed::host(std::int64_t step,
                                                                            std::int64_t microbatch) const {
  const auto rows = static_cast<std::size_t>(rows_);
  const auto first = 2 * rows * static_cast<std::size_t>(step % 2 * microbatches_ + microbatch);
  return {tokens_.span().subspan(first, rows), tokens_.span().subspan(first + rows, rows)};
}

void TokenFeed::fetch(std::int64_t step) {
  if (fetched_[step % 2] == step) return;
  const auto rows = static_cast<std::size_t>(rows_);
  for (std::int64_t m = 0; m < microbatches_; ++m) {
    const auto [tokens, targets] = host(step, m);
    fetch_(step, m, tokens.first(embedding_ ? rows : 0), targets.first(head_ ? rows : 0));
  }
  fetched_[step % 2] = step;
}

void TokenFeed::upload(const Stage& stage, std::int64_t step, std::int64_t microbatch, int slab,
                       cudaStream_t stream) const {
  const auto [tokens, targets] = host(step, microbatch);
  const auto upload = [&](std::int32_t* to, std::span<const std::int32_t> from) {
    if (to == nullptr) return;
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream));
  };
  upload(stage.tokens(slab), tokens);
  upload(stage.targets(slab), targets);
}

}  // namespace stagecraft::cuda
