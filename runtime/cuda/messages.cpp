#include "runtime/cuda/messages.hpp"

#include <algorithm>

#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {
namespace {

template <class T>
std::span<std::byte> bytes_in(T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_writable_bytes(std::span(&value, 1));
}

void wait(cudaStream_t stream, cudaEvent_t event) {
  if (event != nullptr) STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(stream, event, 0));
}

void copy(std::byte* to, int to_gpu, const std::byte* from, int from_gpu, std::int64_t bytes, cudaStream_t stream) {
  if (to_gpu == from_gpu) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream));
  } else {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyPeerAsync(to, to_gpu, from, from_gpu, static_cast<std::size_t>(bytes), stream));
  }
}

}  // namespace

Messages::Messages(const ExecutorContext& context, const RankLayout& layout, const Device& device,
                   const Communicators& communicators, const ShardGroup& shards, const Stages& stages, std::byte* arena)
    : context_(context),
      layout_(layout),
      device_(device),
      communicators_(communicators),
      shards_(shards),
      stages_(stages),
      arena_(arena) {}

std::vector<std::vector<int>> Messages::groups(const ExecutorContext& context) {
  std::vector<std::vector<int>> groups;
  if (context.transport.one_process()) return groups;
  const int own = context.transport.worker();
  for (const Action& action : context.actions()) {
    if (!has_microbatch(action.kind) || is_compute(action.kind)) continue;
    const bool sends = action.kind == ActionKind::send_forward || action.kind == ActionKind::send_backward;
    const int peer = context.peer_of(action);
    groups.push_back(sends ? std::vector{own, peer} : std::vector{peer, own});
  }
  return groups;
}

void Messages::begin_step(bool timed) {
  timed_ = timed;
  freed_.clear();
  inbox_freed_ = nullptr;
  landings_.clear();
  std::fill(std::begin(sent_), std::end(sent_), nullptr);
}

Messages::Part Messages::part_of(const StageLayout& layout) const {
  const TensorShard shard = tensor_shard(context_.plan, context_.place.shard);
  // NCCL gathers equal parts.
  if (shard.count == 1 || shard.sequence_parallel || layout.boundary % (shard.count * alignment) != 0) {
    return {0, layout.boundary};
  }
  const std::int64_t bytes = layout.boundary / shard.count;
  return {shard.index * bytes, bytes};
}

bool Messages::is_reached(int gpu, const StageLayout& layout) const {
  return gpu == device_.gpu() && part_of(layout).bytes == layout.boundary;
}

std::byte* Messages::outbox(int number) const {
  return arena_ + layout_.outbox + number * stages_.begin()->second->layout().boundary;
}

void Messages::send(std::size_t index, int peer, cudaEvent_t computed, Times& times) {
  const bool forward = action(index).kind == ActionKind::send_forward;
  const bool one_process = context_.transport.one_process();
  if (one_process && forward) return offer_output(index, peer, computed);
  one_process ? put_gradient(index, peer, computed, times) : send_to_process(index, peer, computed, times);
}

void Messages::offer_output(std::size_t index, int peer, cudaEvent_t computed) {
  const Action& a = action(index);
  const Stage& stage = stage_of(a);
  const int slab = layout_.places[index].slab;
  OutputMessage message{stage.output(slab), device_.gpu(), computed, {stage.d_output(slab), device_.gpu()}};
  context_.transport.send(peer, {Lane::forward, a.stage.value, a.microbatch.value}, bytes_in(message));
  if (context_.plan.schedule.forward_only) unfetched_[{a.stage.value, slab}] = {peer, a.microbatch.value};
}

void Messages::leave(cudaStream_t stream, cudaEvent_t computed, Times& times) const {
  wait(stream, computed);
  if (timed_) record(times.start, stream);
}

void Messages::put_gradient(std::size_t index, int peer, cudaEvent_t computed, Times& times) {
  const Action& a = action(index);
  const StageLayout& layout = stage_of(a).layout();
  const Part part = part_of(layout);
  const Landing landing = landings_.extract({a.stage.value, a.microbatch.value}).mapped();
  GradientMessage message{computed};
  if (!is_reached(landing.gpu, layout)) {
    const int box = layout_.places[index].outbox;
    // A copy within a GPU is a kernel: beside the next computation it would wait until that one's first product, which
    // may take milliseconds, leaves it a multiprocessor.
    const cudaStream_t stream = landing.gpu == device_.gpu() ? device_.compute() : device_.departures();
    leave(stream, computed, times);
    copy(landing.address + part.offset, landing.gpu, outbox(box) + part.offset, device_.gpu(), part.bytes, stream);
    record(times.end, stream);
    message.arrived = sent_[box] = times.end->get();
  } else if (timed_) {
    record(times.start, device_.compute());
    record(times.end, device_.compute());
  }
  context_.transport.send(peer, {Lane::backward, a.stage.value, a.microbatch.value}, bytes_in(message));
}

// The receiver has read the output when its gradient arrives in the same place.
void Messages::send_to_process(std::size_t index, int peer, cudaEvent_t computed, Times& times) {
  const Action& a = action(index);
  const Stage& stage = stage_of(a);
  const Place& place = layout_.places[index];
  const std::byte* const data = a.kind == ActionKind::send_forward ? stage.output(place.slab) : outbox(place.outbox);
  const Part part = part_of(stage.layout());
  leave(device_.departures(), computed, times);
  communicators_.find({context_.transport.worker(), peer})
      ->send(data + part.offset, part.bytes, 1, device_.departures());
  record(times.end, device_.departures());
  if (a.kind == ActionKind::send_backward) sent_[place.outbox] = times.end->get();
}

std::byte* Messages::destination(std::size_t index) const {
  const Place& place = layout_.places[index];
  if (place.inbox) return inbox();
  const Stage& stage = stage_of(action(index));
  return action(index).kind == ActionKind::recv_forward ? stage.input(place.slab) : stage.d_output(place.slab);
}

Messages::Awaited Messages::arrives_at_destination(std::size_t index, cudaEvent_t arrived) const {
  return {index, arrived, destination(index), layout_.places[index].inbox ? inbox() : nullptr};
}

void Messages::wait_until_free(std::size_t index, cudaStream_t stream) {
  const Place& place = layout_.places[index];
  wait(stream, place.inbox ? inbox_freed_ : freed_[{action(index).stage.value, place.slab}]);
}

void Messages::receive(std::size_t index, int peer, Times& times) {
  const Action& a = action(index);
  if (context_.transport.one_process() && a.kind == ActionKind::recv_forward) {
    awaited_[a] = fetch_output(index, peer, times);
    return;
  }
  const cudaEvent_t arrived =
      context_.transport.one_process() ? gradient_arrived(index, peer) : receive_from_process(index, peer, times);
  awaited_[a] = arrives_at_destination(index, arrived);
}

Messages::Awaited Messages::fetch_output(std::size_t index, int peer, Times& times) {
  const Action& a = action(index);
  OutputMessage message;
  context_.transport.receive(peer, {Lane::forward, a.stage.value - 1, a.microbatch.value}, bytes_in(message));
  landings_[{a.stage.value, a.microbatch.value}] = message.d_output;
  const StageLayout& layout = stage_of(a).layout();
  // In inference the sender waits for a copy that does not wait for the forward.
  if (is_reached(message.gpu, layout) && !context_.plan.schedule.forward_only) {
    return {index, message.ready, nullptr, message.output};
  }
  const cudaStream_t stream = device_.arrivals();
  wait(stream, message.ready);
  wait_until_free(index, stream);
  const Part part = part_of(layout);
  copy(destination(index) + part.offset, device_.gpu(), message.output + part.offset, message.gpu, part.bytes, stream);
  record(times.arrived, stream);
  if (context_.plan.schedule.forward_only) {
    FetchedMessage fetched{times.arrived->get()};
    context_.transport.send(peer, {Lane::backward, a.stage.value, a.microbatch.value}, bytes_in(fetched));
  }
  return arrives_at_destination(index, times.arrived->get());
}

cudaEvent_t Messages::gradient_arrived(std::size_t index, int peer) {
  const Action& a = action(index);
  GradientMessage message;
  context_.transport.receive(peer, {Lane::backward, a.stage.value + 1, a.microbatch.value}, bytes_in(message));
  return message.arrived;
}

cudaEvent_t Messages::receive_from_process(std::size_t index, int peer, Times& times) {
  const Action& a = action(index);
  const cudaStream_t stream = device_.arrivals();
  if (a.kind == ActionKind::recv_forward) wait_until_free(index, stream);
  const Part part = part_of(stage_of(a).layout());
  communicators_.find({peer, context_.transport.worker()})
      ->receive(destination(index) + part.offset, part.bytes, 0, stream);
  record(times.arrived, stream);
  return times.arrived->get();
}

Operands Messages::await(std::size_t computation, std::vector<Times>& times) {
  const Action& a = action(computation);
  const cudaStream_t stream = device_.compute();
  const bool forward = a.kind == ActionKind::forward;
  Operands operands;
  const auto message =
      awaited_.extract({forward ? ActionKind::recv_forward : ActionKind::recv_backward, a.stage, a.microbatch});
  if (!message.empty()) {
    operands.input = message.mapped().elsewhere;
    Times& waited = times[message.mapped().index];
    if (timed_) record(waited.start, stream);
    wait(stream, message.mapped().arrived);
    const StageLayout& layout = stage_of(a).layout();
    const Part part = part_of(layout);
    std::byte* const tensor = message.mapped().tensor;
    if (part.bytes < layout.boundary) shards_.gather(tensor, tensor + part.offset, part.bytes, Element::byte);
    if (timed_) record(waited.end, stream);
  }
  if (const int box = layout_.places[computation].outbox; box >= 0) {
    const auto landing = landings_.find({a.stage.value, a.microbatch.value});
    const bool is_here = landing != landings_.end() && is_reached(landing->second.gpu, stage_of(a).layout());
    if (!is_here) wait(stream, sent_[box]);
    operands.d_input = is_here ? landing->second.address : outbox(box);
  }
  return operands;
}

void Messages::wait_until_fetched(int stage, int slab) {
  const auto output = unfetched_.extract({stage, slab});
  if (output.empty()) return;
  FetchedMessage message;
  context_.transport.receive(output.mapped().receiver, {Lane::backward, stage + 1, output.mapped().microbatch},
                             bytes_in(message));
  wait(device_.compute(), message.fetched);
}

void Messages::wait_until_all_fetched() {
  while (!unfetched_.empty()) {
    const auto [stage, slab] = unfetched_.begin()->first;
    wait_until_fetched(stage, slab);
  }
}

}  // namespace stagecraft::cuda
