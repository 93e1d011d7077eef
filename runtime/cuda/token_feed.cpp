#include "runtime/cuda/token_feed.hpp"

#include "kernels/cuda/token_feed.hpp"

namespace stagecraft::cuda {
namespace {

constexpr std::int64_t not_here = -1;

std::int64_t with_embedding(const RankLayout::Stage& stage) {
  return stage.spec.has_embedding() ? stage.number : not_here;
}
std::int64_t with_head(const RankLayout::Stage& stage) { return stage.spec.has_head() ? stage.number : not_here; }

}  // namespace

TokenFeed::Queue::Queue(std::int64_t stage, const std::vector<Action>& actions, std::int64_t microbatches,
                        std::int64_t rows)
    : position_of(static_cast<std::size_t>(microbatches), not_here),
      values(static_cast<std::size_t>(stage == not_here ? 0 : 2 * microbatches * rows)) {
  std::int64_t next = 0;
  for (const Action& action : actions) {
    if (action.kind != ActionKind::forward || action.stage.value != stage) continue;
    position_of[static_cast<std::size_t>(action.microbatch.value)] = next++;
  }
}

TokenFeed::TokenFeed(const RankLayout& layout, const std::vector<Action>& actions, Fetch fetch,
                     std::int64_t microbatches)
    : fetch_(std::move(fetch)),
      microbatches_(microbatches),
      rows_(layout.stages.front().spec.shape.rows()),
      tokens_(with_embedding(layout.stages.front()), actions, microbatches, rows_),
      targets_(with_head(layout.stages.back()), actions, microbatches, rows_) {}

std::span<std::int32_t> TokenFeed::host(const Queue& queue, std::int64_t step, std::int64_t microbatch) const {
  const std::int64_t position = queue.position_of[static_cast<std::size_t>(microbatch)];
  if (position == not_here) return {};
  const auto rows = static_cast<std::size_t>(rows_);
  return queue.values.span().subspan(static_cast<std::size_t>(first_position(step) + position) * rows, rows);
}

void TokenFeed::fetch(std::int64_t step) {
  if (fetched_[step % 2] == step) return;
  for (std::int64_t m = 0; m < microbatches_; ++m) fetch_(step, m, host(tokens_, step, m), host(targets_, step, m));
  fetched_[step % 2] = step;
}

void TokenFeed::take(const Stage& stage, int slab, StepState& on_device, cudaStream_t stream) const {
  const auto take = [&](std::int32_t* to, const Queue& from, std::int32_t& position) {
    if (to != nullptr) kernels::cuda::take_next(to, from.values.data(), rows_, &position, stream);
  };
  take(stage.tokens(slab), tokens_, on_device.tokens_taken);
  take(stage.targets(slab), targets_, on_device.targets_taken);
}

}  // namespace stagecraft::cuda
