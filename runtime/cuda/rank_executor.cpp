#include "runtime/cuda/rank_executor.hpp"

#include <algorithm>
#include <mutex>
#include <set>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"
#include "runtime/cuda/range.hpp"

namespace stagecraft::cuda {
namespace {

namespace kernels = stagecraft::kernels::cuda;

bool is_send(ActionKind kind) { return kind == ActionKind::send_forward || kind == ActionKind::send_backward; }
bool is_receive(ActionKind kind) { return kind == ActionKind::recv_forward || kind == ActionKind::recv_backward; }

template <class T>
std::span<std::byte> bytes_in(T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_writable_bytes(std::span(&value, 1));
}

// Ranks that choose algorithms at the same time on one GPU would measure each other.
std::mutex& preparation() {
  static std::mutex mutex;
  return mutex;
}

kernels::Buffer allocate(std::int64_t bytes, const Device& device) {
  std::size_t free = 0, all = 0;
  STAGECRAFT_CUDA_CHECK(cudaMemGetInfo(&free, &all));
  if (static_cast<std::size_t>(bytes) > free) {
    constexpr double gib = 1 << 30;
    throw kernels::Error(fmt::format("the rank needs {:.1f} GiB, {} has {:.1f} GiB free",
                                     static_cast<double>(bytes) / gib, device.name(), static_cast<double>(free) / gib));
  }
  return kernels::Buffer(static_cast<std::size_t>(bytes));
}

// The members of all communicators that the rank needs: for sums, and between processes two workers for the messages
// from the first to the second.
std::set<std::vector<int>> groups_of(const ExecutorContext& context, const RankLayout& layout) {
  std::set<std::vector<int>> groups;
  for (const Reduction& reduction : layout.reductions) {
    if (reduction.over_nccl) groups.insert(reduction.members);
  }
  if (context.transport.one_process()) return groups;
  const int own = context.transport.worker();
  for (const Action& action : context.actions()) {
    if (is_send(action.kind)) groups.insert({own, context.peer_of(action)});
    if (is_receive(action.kind)) groups.insert({context.peer_of(action), own});
  }
  return groups;
}

}  // namespace

RankExecutor::RankExecutor(const ExecutorContext& context, RankLayout layout, const DevicePlace& place)
    : context_(context),
      layout_(std::move(layout)),
      device_(place),
      arena_(allocate(layout_.arena_bytes, device_)),
      attention_(kernels::AttentionBackward::fast),
      workspace_{
          arena_.data() + layout_.ping,
          arena_.data() + layout_.pong,
          arena_.data() + layout_.layer_gradients,
          arena_.data() + layout_.recomputed,
          arena_.data() + layout_.scratch,
          layout_.rope_values.empty() ? nullptr : reinterpret_cast<const float*>(arena_.data() + layout_.rope_table)},
      times_(layout_.places.size()),
      losses_(static_cast<std::size_t>(context.plan.schedule.microbatches)) {
  {
    const std::lock_guard lock(preparation());
    // Its file may hold by now what an earlier rank chose.
    gemm_ = std::make_unique<kernels::Gemm>(context.options.algorithm_cache,
                                            device_.is_slice() ? device_.multiprocessors() : 0);
    make_stages();
    for (const auto& [number, stage] : stages_) stage->prepare({arena_.data(), arena_.bytes()});
    STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
  }
  STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(arena_.data(), 0, arena_.bytes(), device_.compute()));
  if (workspace_.rope_table != nullptr) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(arena_.data() + layout_.rope_table, layout_.rope_values.data(),
                                          layout_.rope_values.size() * sizeof(float), cudaMemcpyHostToDevice,
                                          device_.compute()));
  }
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
  updater_.emplace(layout_, arena_.data(), context.place.replica, context.plan.optimizer, context.options.optimizer,
                   device_.compute());
  // Other ranks' micro-batches stay at zero.
  std::fill(losses_.span().begin(), losses_.span().end(), 0.0);
  const std::int64_t rows = layout_.stages.front().spec.shape.rows();
  tokens_.emplace(static_cast<std::size_t>(4 * rows * context.plan.schedule.microbatches));
  communicators_.emplace(context.transport, groups_of(context_, layout_), context.options.peer_timeout);
  reductions_.emplace(context_, layout_, device_, *communicators_, arena_.data());
}

// What is enqueued still uses the arena, and may wait for ranks that are gone.
RankExecutor::~RankExecutor() {
  if (communicators_) communicators_->abort();
  static_cast<void>(cudaDeviceSynchronize());
}

void RankExecutor::make_stages() {
  const bool tf32 = context_.plan.precision == DataType::tf32;
  const Engine engine{{.gemm = gemm_.get(),
                       .workspace = arena_.data() + layout_.gemm_workspace,
                       .stream = device_.compute(),
                       .fp32_inputs = tf32 ? kernels::MatrixType::tf32 : kernels::MatrixType::fp32},
                      &attention_};
  std::optional<ParameterView> table;
  for (const RankLayout::Stage& place : layout_.stages) {
    auto& stage = stages_[place.number] =
        std::make_unique<Stage>(place, arena_.data(), workspace_, engine, table ? &*table : nullptr);
    if (place.number == 0) table = stage->view(0);
    for (std::size_t i = 0; i < place.held.size(); ++i) {
      parameters_.push_back(place.held[i]);
      places_.emplace_back(stage.get(), i);
    }
  }
}

bool RankExecutor::is_shared(std::size_t parameter, int state) const {
  const RankLayout::Stage& stage = places_[parameter].first->place();
  return stage.layout.buckets.front().is_sharded() && (state >= 0 || stage.has_masters());
}

KeptElements RankExecutor::kept(std::size_t parameter) const {
  const auto& [stage, entry] = places_[parameter];
  return kept_elements(stage->layout(), stage->layout().entries[entry], context_.place.replica);
}

std::byte* RankExecutor::address(std::size_t parameter, int state, std::int64_t first) const {
  const auto& [stage, entry] = places_[parameter];
  const RankLayout::Stage& place = stage->place();
  if (state < 0 && !place.has_masters()) {
    return arena_.data() + place.masters + (place.layout.entries[entry].offset + first) * 4;
  }
  const std::int64_t slab = state < 0 ? place.masters : place.states[static_cast<std::size_t>(state)];
  const KeptElements elements = kept(parameter);
  return arena_.data() + slab + (elements.state + first - elements.first) * 4;
}

std::vector<Executor::Share> RankExecutor::shares(std::size_t parameter, int state) const {
  if (!is_shared(parameter, state)) return {};
  const auto& [stage, entry] = places_[parameter];
  const ParameterEntry& tensor = stage->layout().entries[entry];
  std::vector<Share> all;
  for (int replica = 0; replica < context_.plan.replicas(); ++replica) {
    const KeptElements elements = kept_elements(stage->layout(), tensor, replica);
    // Without the padding.
    const std::int64_t last = std::min(elements.last, tensor.parameter.count());
    if (elements.first < last) all.push_back({replica, elements.first, last});
  }
  return all;
}

void RankExecutor::read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const {
  as_device_error([&] {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to.data(), address(parameter, state, first), to.size_bytes(),
                                          cudaMemcpyDeviceToHost, device_.compute()));
    STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
  });
}

void RankExecutor::write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) {
  as_device_error([&] {
    if (is_shared(parameter, state)) return write_shared(parameter, state, from);
    std::byte* const to = address(parameter, state, first);
    const auto count = static_cast<std::int64_t>(from.size());
    STAGECRAFT_CUDA_CHECK(
        cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, device_.compute()));
    const auto& [stage, entry] = places_[parameter];
    if (state < 0 && stage->place().has_masters()) {
      // The whole tensor: a piece may start anywhere.
      const ParameterEntry& whole = stage->layout().entries[entry];
      auto* const weights = arena_.data() + stage->place().weights + whole.offset * 2;
      kernels::cast(reinterpret_cast<kernels::Bf16*>(weights),
                    reinterpret_cast<const float*>(address(parameter, state, 0)),
                    first == 0 ? (count + 7) / 8 * 8 : whole.elements, device_.compute());
    }
    STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
  });
}

// A whole tensor, of which this replica keeps a part: all of it passes through the memory for sums.
void RankExecutor::write_shared(std::size_t parameter, int state, std::span<const float> from) {
  const KeptElements elements = kept(parameter);
  const auto& [stage, entry] = places_[parameter];
  const auto count = static_cast<std::int64_t>(from.size());
  if (const std::int64_t last = std::min(elements.last, count); elements.first < last) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(address(parameter, state, elements.first), from.data() + elements.first,
                                          static_cast<std::size_t>(last - elements.first) * 4, cudaMemcpyHostToDevice,
                                          device_.compute()));
  }
  auto* const piece = reinterpret_cast<float*>(arena_.data() + layout_.exchange);
  auto* const weights =
      reinterpret_cast<kernels::Bf16*>(arena_.data() + stage->place().weights) + stage->layout().entries[entry].offset;
  for (std::int64_t first = 0; state < 0 && first < count; first += layout_.exchange_bytes / 4) {
    const std::int64_t size = std::min(layout_.exchange_bytes / 4, count - first);
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(piece, from.data() + first, static_cast<std::size_t>(size) * 4,
                                          cudaMemcpyHostToDevice, device_.compute()));
    kernels::cast(weights + first, piece, (size + 7) / 8 * 8, device_.compute());
  }
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
}

// Fetches the tokens that the rank will need in a step: there is room for two steps.
void RankExecutor::prefetch(std::int64_t step) {
  if (fetched_[step % 2] == step) return;
  const bool embedding = layout_.stages.front().spec.has_embedding(), head = layout_.stages.back().spec.has_head();
  const std::size_t rows = tokens_->span().size() / 4 / losses_.span().size();
  for (std::size_t m = 0; m < losses_.span().size(); ++m) {
    const auto [tokens, targets] = host_tokens(step, static_cast<std::int64_t>(m));
    context_.fetch(step, static_cast<std::int64_t>(m), tokens.first(embedding ? rows : 0),
                   targets.first(head ? rows : 0));
  }
  fetched_[step % 2] = step;
}

std::pair<std::span<std::int32_t>, std::span<std::int32_t>> RankExecutor::host_tokens(std::int64_t step,
                                                                                      std::int64_t microbatch) const {
  const std::size_t rows = tokens_->span().size() / 4 / losses_.span().size();
  const std::size_t at =
      static_cast<std::size_t>(step % 2) * losses_.span().size() + static_cast<std::size_t>(microbatch);
  return {tokens_->span().subspan(2 * at * rows, rows), tokens_->span().subspan((2 * at + 1) * rows, rows)};
}

void RankExecutor::begin_step(std::int64_t step) {
  as_device_error([&] {
    prefetch(step);
    ++steps_;
    step_ = step;
    freed_.clear();
    landings_.clear();
    std::fill(std::begin(sent_), std::end(sent_), nullptr);
    // Sums that run beside the host's work wait for other ranks, and what is loaded or captured may wait for the
    // device.
    reductions_->begin_step(steps_ > 2);
    // The device is idle, so that its clock and the host's meet here.
    origin_.record(device_.compute());
    origin_.synchronize();
    origin_time_ = Clock::now();
  });
}

void RankExecutor::wait(cudaStream_t stream, cudaEvent_t event) {
  if (event != nullptr) STAGECRAFT_CUDA_CHECK(cudaStreamWaitEvent(stream, event, 0));
}

void RankExecutor::upload_tokens(const Stage& stage, std::int64_t microbatch, int slab) {
  const auto [tokens, targets] = host_tokens(step_, microbatch);
  const auto upload = [&](std::int32_t* to, std::span<const std::int32_t> from) {
    if (to == nullptr) return;
    STAGECRAFT_CUDA_CHECK(
        cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, device_.compute()));
  };
  upload(stage.tokens(slab), tokens);
  upload(stage.targets(slab), targets);
}

void RankExecutor::compute(std::size_t index) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    const Action& a = action(index);
    const Place& at = place(index);
    const Stage& stage = stage_of(a);
    const cudaStream_t stream = device_.compute();
    const bool forward = a.kind == ActionKind::forward;
    if (forward) wait_until_fetched(a.stage.value, at.slab);
    if (forward) upload_tokens(stage, a.microbatch.value, at.slab);
    await_message(a);
    if (at.outbox >= 0) wait(stream, sent_[at.outbox]);
    record(times_[index].start, stream);
    if (const auto reductions = reductions_->during(index); !reductions.empty()) {
      launch_in_buckets(index, reductions);
    } else {
      launch(a, at, {0, stage.layout().layers.size()});
    }
    record(times_[index].end, stream);
    last_computed_ = times_[index].end->get();
    if (forward && stage.loss(at.slab) != nullptr) {
      STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(&losses_[static_cast<std::size_t>(a.microbatch.value)], stage.loss(at.slab),
                                            sizeof(double), cudaMemcpyDeviceToHost, stream));
    }
    const bool last = a.kind == ActionKind::backward || a.kind == ActionKind::backward_weight;
    if (last || context_.plan.schedule.forward_only) {
      freed_[{a.stage.value, at.slab}] = last_computed_;
    }
  });
}

// The message that the computation needs: its RECV may come much earlier in the list.
void RankExecutor::await_message(const Action& a) {
  const bool forward = a.kind == ActionKind::forward;
  if (a.kind == ActionKind::backward_weight) return;
  const auto message =
      awaited_.extract({forward ? ActionKind::recv_forward : ActionKind::recv_backward, a.stage, a.microbatch});
  if (message.empty()) return;
  Times& times = times_[message.mapped().index];
  record(times.start, device_.compute());
  wait(device_.compute(), message.mapped().arrived);
  record(times.end, device_.compute());
}

// Without backwards nothing else says that an output has been fetched and its slab may be written again.
void RankExecutor::wait_until_fetched(int stage, int slab) {
  const auto output = unfetched_.extract({stage, slab});
  if (output.empty()) return;
  FetchedMessage message;
  context_.transport.receive(output.mapped().receiver, {Lane::backward, stage + 1, output.mapped().microbatch},
                             bytes_in(message));
  wait(device_.compute(), message.fetched);
}

void RankExecutor::launch(const Action& a, const Place& at, LayerSpan layers) {
  if (steps_ == 1) return enqueue(a, at, layers);
  graphs_.launch({a.kind, a.stage.value, at, layers}, device_.compute(), [&] { enqueue(a, at, layers); });
}

// The last weight gradient of a stage, whose gradients are summed as they come.
void RankExecutor::launch_in_buckets(std::size_t index, std::span<const Reduction> reductions) {
  const StageLayout& layout = stage_of(action(index)).layout();
  LayerSpan left{0, layout.layers.size()};
  for (const Reduction& reduction : reductions) {
    const std::size_t first = layout.buckets[reduction.bucket].layers.first;
    launch(action(index), place(index), {first, left.last});
    reductions_->start(reduction, times_);
    left.last = first;
  }
  if (left.last > 0) launch(action(index), place(index), left);
}

void RankExecutor::enqueue(const Action& a, const Place& at, LayerSpan layers) {
  const Stage& stage = stage_of(a);
  if (a.kind == ActionKind::forward) {
    std::byte* output = stage.layout().output >= 0 ? stage.output(at.slab) : nullptr;
    if (at.next_slab >= 0) output = stages_.at(a.stage.value + 1)->input(at.next_slab);
    return stage.forward(at, output);
  }
  if (a.kind == ActionKind::backward_weight) return stage.backward_weight(at, layers);
  std::byte* d_input = nullptr;
  if (at.outbox >= 0) d_input = outbox(at.outbox);
  if (at.previous_slab >= 0) d_input = stages_.at(a.stage.value - 1)->d_output(at.previous_slab);
  if (a.kind == ActionKind::backward) return stage.backward(at, d_input, layers);
  stage.backward_input(at, d_input);
}

std::byte* RankExecutor::outbox(int number) const {
  const std::int64_t bytes = stages_.begin()->second->layout().boundary;
  return arena_.data() + layout_.outbox + number * bytes;
}

void RankExecutor::send(std::size_t index, int peer) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    if (!context_.transport.one_process()) return send_to_process(index, peer);
    const Action& a = action(index);
    const Stage& stage = stage_of(a);
    if (a.kind == ActionKind::send_forward) {
      const int slab = place(index).slab;
      OutputMessage message{stage.output(slab), device_.gpu(), last_computed_, {stage.d_output(slab), device_.gpu()}};
      context_.transport.send(peer, {Lane::forward, a.stage.value, a.microbatch.value}, bytes_in(message));
      if (context_.plan.schedule.forward_only) unfetched_[{a.stage.value, slab}] = {peer, a.microbatch.value};
      return;
    }
    const auto landing = landings_.extract({a.stage.value, a.microbatch.value});
    const cudaStream_t stream = device_.departures();
    Times& times = times_[index];
    wait(stream, last_computed_);
    record(times.start, stream);
    copy(landing.mapped().address, landing.mapped().gpu, outbox(place(index).outbox), device_.gpu(),
         stage.layout().boundary, stream);
    record(times.end, stream);
    sent_[place(index).outbox] = times.end->get();
    GradientMessage message{times.end->get()};
    context_.transport.send(peer, {Lane::backward, a.stage.value, a.microbatch.value}, bytes_in(message));
  });
}

void RankExecutor::receive(std::size_t index, int peer) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    const bool forward = action(index).kind == ActionKind::recv_forward;
    awaited_[action(index)] = {index, !context_.transport.one_process() ? receive_from_process(index, peer)
                                      : forward                         ? receive_output(index, peer)
                                                                        : receive_gradient(index, peer)};
  });
}

// The receiver has read the output when its gradient arrives in the same place.
void RankExecutor::send_to_process(std::size_t index, int peer) {
  const Action& a = action(index);
  const Stage& stage = stage_of(a);
  const bool forward = a.kind == ActionKind::send_forward;
  const std::byte* const data = forward ? stage.output(place(index).slab) : outbox(place(index).outbox);
  const cudaStream_t stream = device_.departures();
  Times& times = times_[index];
  wait(stream, last_computed_);
  record(times.start, stream);
  communicators_->find({context_.transport.worker(), peer})->send(data, stage.layout().boundary, 1, stream);
  record(times.end, stream);
  if (!forward) sent_[place(index).outbox] = times.end->get();
}

cudaEvent_t RankExecutor::receive_from_process(std::size_t index, int peer) {
  const Action& a = action(index);
  const Stage& stage = stage_of(a);
  const int slab = place(index).slab;
  const bool forward = a.kind == ActionKind::recv_forward;
  std::byte* const data = forward ? stage.input(slab) : stage.d_output(slab);
  const cudaStream_t stream = device_.arrivals();
  if (forward) wait(stream, freed_[{a.stage.value, slab}]);
  communicators_->find({peer, context_.transport.worker()})->receive(data, stage.layout().boundary, 0, stream);
  record(times_[index].arrived, stream);
  return times_[index].arrived->get();
}

cudaEvent_t RankExecutor::receive_output(std::size_t index, int peer) {
  const Action& a = action(index);
  const Stage& stage = stage_of(a);
  const int slab = place(index).slab;
  OutputMessage message;
  context_.transport.receive(peer, {Lane::forward, a.stage.value - 1, a.microbatch.value}, bytes_in(message));
  landings_[{a.stage.value, a.microbatch.value}] = message.d_output;
  const cudaStream_t stream = device_.arrivals();
  wait(stream, message.ready);
  wait(stream, freed_[{a.stage.value, slab}]);
  copy(stage.input(slab), device_.gpu(), message.output, message.gpu, stage.layout().boundary, stream);
  record(times_[index].arrived, stream);
  if (context_.plan.schedule.forward_only) {
    FetchedMessage fetched{times_[index].arrived->get()};
    context_.transport.send(peer, {Lane::backward, a.stage.value, a.microbatch.value}, bytes_in(fetched));
  }
  return times_[index].arrived->get();
}

cudaEvent_t RankExecutor::receive_gradient(std::size_t index, int peer) {
  const Action& a = action(index);
  GradientMessage message;
  context_.transport.receive(peer, {Lane::backward, a.stage.value + 1, a.microbatch.value}, bytes_in(message));
  return message.arrived;
}

void RankExecutor::copy(std::byte* to, int to_gpu, const std::byte* from, int from_gpu, std::int64_t bytes,
                        cudaStream_t stream) {
  if (to_gpu == from_gpu) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream));
  } else {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyPeerAsync(to, to_gpu, from, from_gpu, static_cast<std::size_t>(bytes), stream));
  }
}

void RankExecutor::reduce(std::size_t index) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    reductions_->finish(index, times_);
    // The optimizer's kernels are loaded next.
    if (steps_ == 1) wait_for_device(device_.compute());
  });
}

// A failure names the first action that the device has not finished.
void RankExecutor::wait_for_device(cudaStream_t stream) const {
  const auto unfinished = [&](const std::exception& error) {
    for (std::size_t i = 0; i < times_.size(); ++i) {
      const bool is_late = times_[i].end && cudaEventQuery(times_[i].end->get()) != cudaSuccess;
      if (is_late) return fmt::format("{}: {}", layout_.labels[i], error.what());
    }
    return std::string(error.what());
  };
  try {
    communicators_->wait_for(stream);
  } catch (const kernels::Error& error) {
    throw kernels::Error(unfinished(error));
  } catch (const Error& error) {
    throw Error(error.kind(), unfinished(error));
  }
}

void RankExecutor::sum_shard_gradients() {}

double RankExecutor::squared_gradient_norm() {
  return as_device_error([&] {
    updater_->enqueue_squared_norm();
    wait_for_device(device_.compute());
    return updater_->squared_norm();
  });
}

void RankExecutor::optimizer_step(std::size_t index, double rate, double gradient_scale) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    record(times_[index].start, device_.compute());
    updater_->step(action(index).stage.value, rate, step_, gradient_scale);
    reductions_->gather(stage_of(action(index)).place());
    record(times_[index].end, device_.compute());
  });
}

double RankExecutor::end_step() {
  return as_device_error([&] {
    // While the device works.
    prefetch(step_ + 1);
    while (!unfetched_.empty()) {
      const auto [stage, slab] = unfetched_.begin()->first;
      wait_until_fetched(stage, slab);
    }
    for (const cudaStream_t stream : {device_.compute(), device_.arrivals(), device_.departures()}) {
      wait_for_device(stream);
    }
    double sum = 0;
    if (layout_.stages.back().spec.has_head()) {
      for (const double loss : losses_.span()) sum += loss;
    }
    return sum;
  });
}

std::optional<Executor::Interval> RankExecutor::device_time(std::size_t index) const {
  const auto since_origin = [&](const kernels::Event& event) {
    const std::chrono::duration<double> time(event.seconds_since(origin_));
    return origin_time_ + std::chrono::duration_cast<Clock::duration>(time);
  };
  const Times& times = times_[index];
  return as_device_error([&]() -> std::optional<Interval> {
    if (!times.start || !times.end) return std::nullopt;
    return Interval{since_origin(*times.start), since_origin(*times.end)};
  });
}

std::int64_t RankExecutor::bytes_of(const Action& action) const {
  if (is_compute(action.kind) || action.kind == ActionKind::optimizer_step) return 0;
  const StageLayout& layout = stages_.at(action.stage.value)->layout();
  if (has_microbatch(action.kind)) return layout.boundary;
  return 4 *
         (action.kind == ActionKind::reduce_tied ? stages_.at(action.stage.value)->table()->elements : layout.elements);
}

}  // namespace stagecraft::cuda
