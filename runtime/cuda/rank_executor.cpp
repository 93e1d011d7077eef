#include "runtime/cuda/rank_executor.hpp"

#include <algorithm>
#include <mutex>
#include <set>

#include "kernels/cuda/elementwise.hpp"
#include "kernels/cuda/error.hpp"
#include "runtime/cuda/range.hpp"

namespace stagecraft::cuda {
namespace {

// Ranks that choose algorithms at the same time on one GPU would measure each other.
std::mutex& preparation() {
  static std::mutex mutex;
  return mutex;
}

kernels::cuda::Buffer allocate(std::int64_t bytes, const Device& device) {
  std::size_t free = 0, all = 0;
  STAGECRAFT_CUDA_CHECK(cudaMemGetInfo(&free, &all));
  if (static_cast<std::size_t>(bytes) > free) {
    constexpr double gib = 1 << 30;
    throw kernels::cuda::Error(fmt::format("the rank needs {:.1f} GiB, {} has {:.1f} GiB free",
                                           static_cast<double>(bytes) / gib, device.name(),
                                           static_cast<double>(free) / gib));
  }
  return kernels::cuda::Buffer(static_cast<std::size_t>(bytes));
}

// The members of all communicators that the rank needs: for sums, for messages and with its other shards.
std::set<std::vector<int>> groups_of(const ExecutorContext& context, const RankLayout& layout) {
  std::set<std::vector<int>> groups;
  for (const Reduction& reduction : layout.reductions) {
    if (reduction.over_nccl) groups.insert(reduction.members);
  }
  for (std::vector<int>& group : Messages::groups(context)) groups.insert(std::move(group));
  if (context.plan.shards() > 1) groups.insert(context.shard_workers());
  return groups;
}

ShardGroup shard_group(const ExecutorContext& context, const Communicators& communicators, const Device& device) {
  if (context.plan.shards() == 1) return {};
  return {*communicators.find(context.shard_workers()), device.compute()};
}

}  // namespace

RankExecutor::RankExecutor(const ExecutorContext& context, RankLayout layout, const DevicePlace& place)
    : context_(context),
      layout_(std::move(layout)),
      device_(place),
      arena_(allocate(layout_.arena_bytes, device_)),
      communicators_(context.transport, groups_of(context_, layout_), context.options.peer_timeout),
      shards_(shard_group(context_, communicators_, device_)),
      attention_(context.options.deterministic ? kernels::cuda::AttentionBackward::deterministic
                                               : kernels::cuda::AttentionBackward::fast),
      workspace_{
          arena_.data() + layout_.ping,
          arena_.data() + layout_.pong,
          arena_.data() + layout_.layer_gradients,
          arena_.data() + layout_.recomputed,
          arena_.data() + layout_.scratch,
          layout_.rope_values.empty() ? nullptr : reinterpret_cast<const float*>(arena_.data() + layout_.rope_table),
          reinterpret_cast<StepState*>(arena_.data() + layout_.step_state)},
      tensors_(layout_, context.place, context.plan.replicas(), arena_.data(), device_.compute()),
      messages_(context_, layout_, device_, communicators_, shards_, stages_, arena_.data()),
      reductions_(context_, layout_, device_, communicators_, arena_.data()),
      tokens_(layout_, context_.actions(), context.fetch, context.plan.schedule.microbatches),
      times_(layout_.places.size()) {
  prepare();
  STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(arena_.data(), 0, arena_.bytes(), device_.compute()));
  if (workspace_.rope_table != nullptr) {
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(arena_.data() + layout_.rope_table, layout_.rope_values.data(),
                                          layout_.rope_values.size() * sizeof(float), cudaMemcpyHostToDevice,
                                          device_.compute()));
  }
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
  updater_.emplace(layout_, arena_.data(), context.place.replica, context.plan.optimizer, context.options.optimizer,
                   device_.compute());
}

// What is enqueued still uses the arena, and may wait for ranks that are gone.
RankExecutor::~RankExecutor() {
  graphs_.clear();  // a communicator stays as long as a graph uses it
  communicators_.abort();
  static_cast<void>(cudaDeviceSynchronize());
}

// Chooses algorithms by trying them, which uses the arena.
void RankExecutor::prepare() {
  const std::lock_guard lock(preparation());
  // Its file may hold by now what an earlier rank chose.
  gemm_ = std::make_unique<kernels::cuda::Gemm>(context_.options.algorithm_cache,
                                                device_.is_slice() ? device_.multiprocessors() : 0);
  make_stages();
  // What is tried must not write over the workspace of what tries it.
  const std::span scratch(arena_.data(), static_cast<std::size_t>(layout_.gemm_workspace));
  for (const auto& [number, stage] : stages_) stage->prepare(scratch);
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(device_.compute()));
}

void RankExecutor::make_stages() {
  const bool tf32 = context_.plan.precision == DataType::tf32;
  const Engine engine{{.gemm = gemm_.get(),
                       .workspace = arena_.data() + layout_.gemm_workspace,
                       .stream = device_.compute(),
                       .fp32_inputs = tf32 ? kernels::cuda::MatrixType::tf32 : kernels::cuda::MatrixType::fp32},
                      &attention_,
                      &shards_};
  std::optional<ParameterView> table;
  for (const RankLayout::Stage& place : layout_.stages) {
    auto& stage = stages_[place.number] =
        std::make_unique<Stage>(place, arena_.data(), workspace_, engine, table ? &*table : nullptr);
    if (place.number == 0) table = stage->view(0);
  }
}

void RankExecutor::read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const {
  as_device_error([&] { tensors_.read(parameter, state, first, to); });
}

void RankExecutor::write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) {
  as_device_error([&] { tensors_.write(parameter, state, first, from); });
}

void RankExecutor::begin_step(std::int64_t step, bool timed) {
  as_device_error([&] {
    tokens_.fetch(step);
    ++steps_;
    step_ = step;
    timed_ = timed;
    messages_.begin_step(timed);
    // Sums that run beside the host's work wait for other ranks, and what is loaded or captured may wait for the
    // device.
    reductions_.begin_step(steps_ > 2);
    shards_.set_cautious(steps_ <= 2);
    // The device is idle, so that its clock and the host's meet here.
    origin_.record(device_.compute());
    origin_.synchronize();
    origin_time_ = Clock::now();
    const std::int32_t first = tokens_.first_position(step);
    step_state_[0] = {0, first, first};
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(workspace_.step_state, &step_state_[0], sizeof(StepState),
                                          cudaMemcpyHostToDevice, device_.compute()));
    kernels::cuda::read_clock(&ticks_[0], device_.compute());
  });
}

void RankExecutor::compute(std::size_t index) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    const Action& a = action(index);
    const Place& at = place(index);
    const Stage& stage = stage_of(a);
    const cudaStream_t stream = device_.compute();
    if (a.kind == ActionKind::forward) messages_.wait_until_fetched(a.stage.value, at.slab);
    const Operands operands = messages_.await(index, times_);
    if (timed_) record(times_[index].start, stream);
    if (const auto reductions = reductions_.during(index); !reductions.empty()) {
      launch_in_buckets(index, operands, reductions);
    } else {
      launch({a.kind, a.stage.value, at, {0, stage.layout().layers.size()}, operands});
    }
    record(times_[index].end, stream);
    last_computed_ = times_[index].end->get();
    if (at.inbox) messages_.release_inbox(last_computed_);
    const bool last = a.kind == ActionKind::backward || a.kind == ActionKind::backward_weight;
    if (last || context_.plan.schedule.forward_only) messages_.release(a.stage.value, at.slab, last_computed_);
  });
}

void RankExecutor::launch(const GraphKey& work) {
  if (steps_ == 1) return enqueue(work);
  graphs_.launch(work, device_.compute(), [&] { enqueue(work); });
  shards_.settle();
}

// The last weight gradient of a stage, whose gradients are summed as they come.
void RankExecutor::launch_in_buckets(std::size_t index, const Operands& operands,
                                     std::span<const Reduction> reductions) {
  const Action& a = action(index);
  const StageLayout& layout = stage_of(a).layout();
  LayerSpan left{0, layout.layers.size()};
  for (const Reduction& reduction : reductions) {
    const std::size_t first = layout.buckets[reduction.bucket].layers.first;
    launch({a.kind, a.stage.value, place(index), {first, left.last}, operands});
    reductions_.start(reduction, times_);
    left.last = first;
  }
  if (left.last > 0) launch({a.kind, a.stage.value, place(index), left, operands});
}

void RankExecutor::enqueue(const GraphKey& work) {
  const Stage& stage = *stages_.at(work.stage);
  const Place& at = work.place;
  const Operands& operands = work.operands;
  if (work.kind == ActionKind::forward) {
    if (operands.input != nullptr) {
      kernels::cuda::copy(reinterpret_cast<float*>(stage.input(at.slab)),
                          reinterpret_cast<const float*>(operands.input), stage.layout().boundary / float_bytes,
                          device_.compute());
    }
    tokens_.take(stage, at.slab, *workspace_.step_state, device_.compute());
    std::byte* output = stage.layout().output >= 0 ? stage.output(at.slab) : nullptr;
    if (at.next_slab >= 0) output = stages_.at(work.stage + 1)->input(at.next_slab);
    return stage.forward(at, output);
  }
  if (work.kind == ActionKind::backward_weight) return stage.backward_weight(at, work.layers);
  std::byte* const d_input =
      at.previous_slab >= 0 ? stages_.at(work.stage - 1)->d_output(at.previous_slab) : operands.d_input;
  if (work.kind == ActionKind::backward) return stage.backward(at, d_input, work.layers);
  stage.backward_input(at, d_input);
}

void RankExecutor::send(std::size_t index, int peer) {
  const Range range(layout_.labels[index]);
  as_device_error([&] { messages_.send(index, peer, last_computed_, times_[index]); });
}

void RankExecutor::receive(std::size_t index, int peer) {
  const Range range(layout_.labels[index]);
  as_device_error([&] { messages_.receive(index, peer, times_[index]); });
}

void RankExecutor::reduce(std::size_t index) {
  const Range range(layout_.labels[index]);
  as_device_error([&] {
    reductions_.finish(index, times_);
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
    communicators_.wait_for(stream);
  } catch (const kernels::cuda::Error& error) {
    throw kernels::cuda::Error(unfinished(error));
  } catch (const Error& error) {
    throw Error(error.kind(), unfinished(error));
  }
}

void RankExecutor::sum_shard_gradients() {
  if (!tensor_shard(context_.plan, context_.place.shard).sequence_parallel) return;
  as_device_error([&] {
    for (const RankLayout::Stage& stage : layout_.stages) {
      auto* const gradients = reinterpret_cast<float*>(arena_.data() + stage.gradients);
      for (const ElementRange& norms : ranges_of(stage.layout, [](const Parameter& p) { return p.norm; })) {
        shards_.sum(gradients + norms.first, norms.last - norms.first, Element::fp32);
      }
    }
  });
}

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
    reductions_.gather(stage_of(action(index)).place());
    record(times_[index].end, device_.compute());
  });
}

double RankExecutor::end_step() {
  return as_device_error([&] {
    // While the device works.
    tokens_.fetch(step_ + 1);
    messages_.wait_until_all_fetched();
    kernels::cuda::read_clock(&ticks_[1], device_.compute());
    STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(&step_state_[0], workspace_.step_state, sizeof(StepState),
                                          cudaMemcpyDeviceToHost, device_.compute()));
    for (const cudaStream_t stream : {device_.compute(), device_.arrivals(), device_.departures()}) {
      wait_for_device(stream);
    }
    return step_state_[0].loss_sum;
  });
}

std::optional<Executor::Interval> RankExecutor::device_time(std::size_t index) const {
  const auto since_origin = [&](const kernels::cuda::Event& event) {
    const std::chrono::duration<double> time(event.seconds_since(origin_));
    return origin_time_ + std::chrono::duration_cast<Clock::duration>(time);
  };
  const Times& times = times_[index];
  return as_device_error([&]() -> std::optional<Interval> {
    if (!times.start || !times.end) return std::nullopt;
    return Interval{since_origin(*times.start), since_origin(*times.end)};
  });
}

std::optional<double> RankExecutor::clock() const { return kernels::cuda::clock_between(ticks_[0], ticks_[1]); }

std::int64_t RankExecutor::bytes_of(const Action& action) const {
  if (is_compute(action.kind) || action.kind == ActionKind::optimizer_step) return 0;
  const Stage& stage = *stages_.at(action.stage.value);
  if (has_microbatch(action.kind)) return messages_.bytes(stage.layout());
  return 4 * (action.kind == ActionKind::reduce_tied ? stage.table()->elements : stage.layout().elements);
}

}  // namespace stagecraft::cuda
