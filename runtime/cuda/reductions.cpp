#include "runtime/cuda/reductions.hpp"

#include <algorithm>

namespace stagecraft::cuda {

Reductions::Reductions(const ExecutorContext& context, const RankLayout& layout, const Device& device,
                       const Communicators& communicators, std::byte* arena)
    : context_(context),
      layout_(layout),
      device_(device),
      communicators_(communicators),
      arena_(arena),
      peers_(context.transport, device.gpu(),
             {arena + layout.exchange, static_cast<std::size_t>(layout.exchange_bytes)}, device.compute()),
      order_(layout.reductions),
      ready_(order_.size()),
      started_(order_.size()) {}

const RankLayout::Stage& Reductions::stage_of(std::size_t action) const {
  const int number = context_.actions()[action].stage.value;
  return *std::find_if(layout_.stages.begin(), layout_.stages.end(), [&](const auto& s) { return s.number == number; });
}

void Reductions::begin_step(bool overlapped) {
  overlapped_ = overlapped;
  std::fill(started_.begin(), started_.end(), false);
  peers_.forget_events();
}

std::span<const Reduction> Reductions::during(std::size_t computation) const {
  const auto is = [&](const Reduction& r) { return r.during == computation; };
  const auto first = std::find_if(order_.begin(), order_.end(), is);
  const auto last = std::find_if_not(first, order_.end(), is);
  return {first, last};
}

void Reductions::start(const Reduction& reduction, std::vector<Times>& times) {
  if (!overlapped_) return;
  const std::size_t number = number_of(reduction);
  join(device_.sums(), device_.compute(), ready_[number]);
  const auto first = std::find_if(order_.begin(), order_.end(), [&](const Reduction& r) {
    return r.action == reduction.action && started_[number_of(r)];
  });
  if (first == order_.end()) record(times[reduction.action].start, device_.sums());
  reduce(reduction);
}

void Reductions::finish(std::size_t action, std::vector<Times>& times) {
  cudaStream_t stream = device_.compute();
  bool begun = false;
  for (const Reduction& reduction : order_) {
    if (reduction.action != action) continue;
    begun = begun || started_[number_of(reduction)];
    if (communicators_.find(reduction.members) != nullptr) stream = device_.sums();
  }
  if (stream != device_.compute()) join(stream, device_.compute(), updated_);
  if (!begun) record(times[action].start, stream);
  for (const Reduction& reduction : order_) {
    if (reduction.action == action && !started_[number_of(reduction)]) reduce(reduction);
  }
  record(times[action].end, stream);
  if (stream != device_.compute())
    STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(device_.compute(), times[action].end->get(), 0));
}

// Enqueues the sum of a bucket, of the table alone, or by peer copies of all the stage's buckets at once.
void Reductions::reduce(const Reduction& reduction) {
  started_[number_of(reduction)] = true;
  const Action& action = context_.actions()[reduction.action];
  const RankLayout::Stage& stage = stage_of(reduction.action);
  Communicator* const group = communicators_.find(reduction.members);
  auto* const gradients = reinterpret_cast<float*>(arena_ + stage.gradients);
  if (action.kind == ActionKind::reduce_tied) {
    const ParameterEntry& table = *token_table_of(stage.layout);
    if (group != nullptr) {
      return group->all_reduce(gradients + table.offset, table.elements, Element::fp32, device_.sums());
    }
    return peers_.sum(reduction.members, {Lane::tied, 0, -1}, gradients + table.offset, table.elements);
  }
  const MessageTag tag{Lane::gradient, action.stage.value, -1};
  const Bucket& bucket = stage.layout.buckets[reduction.bucket];
  float* const data = gradients + bucket.offset;
  if (bucket.is_sharded()) {
    if (group != nullptr) {
      float* const own = data + group->index() * bucket.share;
      return group->reduce_scatter(own, data, bucket.share, Element::fp32, device_.sums());
    }
    return peers_.reduce_scatter(reduction.members, tag, data, bucket.elements, bucket.share);
  }
  if (group != nullptr) return group->all_reduce(data, bucket.elements, Element::fp32, device_.sums());
  for (const Reduction& other : order_) {
    if (other.action == reduction.action) started_[number_of(other)] = true;
  }
  peers_.sum(reduction.members, tag, gradients, stage.layout.elements);
}

void Reductions::gather(const RankLayout::Stage& stage) {
  const auto reduction = std::find_if(order_.begin(), order_.end(), [&](const Reduction& r) {
    return context_.actions()[r.action].kind == ActionKind::reduce_grad && stage_of(r.action).number == stage.number;
  });
  if (reduction == order_.end()) return;
  const std::int64_t element = stage.has_masters() ? 2 : 4;
  Communicator* const group = communicators_.find(reduction->members);
  if (group != nullptr) join(device_.sums(), device_.compute(), updated_);
  for (const Bucket& bucket : stage.layout.buckets) {
    if (!bucket.is_sharded()) continue;
    std::byte* const weights = arena_ + stage.weights + bucket.offset * element;
    if (group != nullptr) {
      const std::byte* const own = weights + group->index() * bucket.share * element;
      group->all_gather(weights, own, bucket.share, stage.has_masters() ? Element::bf16 : Element::fp32,
                        device_.sums());
    } else {
      peers_.all_gather(reduction->members, {Lane::gradient, stage.number, -1}, weights, bucket.elements * element,
                        bucket.share * element);
    }
  }
  if (group != nullptr) join(device_.compute(), device_.sums(), gathered_);
}

}  // namespace stagecraft::cuda
