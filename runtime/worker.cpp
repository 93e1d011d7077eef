#include "runtime/worker.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <iterator>
#include <numeric>
#include <thread>
#include <tuple>

#include "models/statistics.hpp"
#include "runtime/collectives.hpp"
#include "runtime/make_executor.hpp"

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Worker::Worker(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options, const TokenData& data,
               Transport& transport)
    : plan_(plan),
      actions_(schedule.ranks[static_cast<std::size_t>(transport.worker() % plan.ranks())]),
      placement_(plan.schedule),
      optimizer_(options.optimizer),
      data_(data),
      transport_(transport),
      place_(worker_place(plan, transport.worker())),
      name_(worker_name(plan, transport.worker())),
      last_step_(options.steps),
      // On CPUs every core has a worker of its own.
      threads_(options.backend == Backend::cpu
                   ? 1
                   : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / transport.workers())),
      events_(static_cast<std::size_t>(std::max(options.trace_steps, 0))) {
  const auto fetcher = [this](auto... arguments) { fetch(arguments...); };
  executor_ = with_context(name_, [&] {
    return make_executor({plan, schedule, placement_, options, transport, fetcher, place_});
  });
  for (auto& events : events_) events.reserve(actions_.size());
  clocks_.resize(events_.size());
}

void Worker::initialize(std::uint64_t seed) {
  seed_ = seed;
  const auto& parameters = executor_->parameters();
  std::vector<float> values;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i].parameter;
    values.resize(static_cast<std::size_t>(parameter.count()));
    fill_initial(parameter, seed, values, threads_);
    write_slice(*executor_, i, -1, values);
  }
}

StepResult Worker::run_step(std::int64_t step, Clock::time_point origin) {
  step_ = step;
  origin_ = origin;
  result_ = {};
  gradient_scale_ = 1;
  gradients_finished_ = false;
  if (!events_.empty()) recorded().clear();
  const auto in_rank = [&](auto&& body) { return with_context(name_, body); };
  in_rank([&] { executor_->begin_step(step, !events_.empty()); });
  for (std::size_t index = 0; index < actions_.size(); ++index) execute(index);
  assert(pending_.empty());
  const double loss_sum = in_rank([&] { return executor_->end_step(); });
  if (place_.shard == 0) result_.loss_sum = loss_sum;
  take_device_times();
  return result_;
}

void Worker::execute(std::size_t index) {
  const Action& action = actions_[index];
  const auto start = Clock::now();
  try {
    switch (action.kind) {
      case ActionKind::forward:
      case ActionKind::backward:
      case ActionKind::backward_input:
      case ActionKind::backward_weight:
        executor_->compute(index);
        count_host_time(start);
        break;
      case ActionKind::send_forward:
      case ActionKind::send_backward:
        executor_->send(index, peer_of(action));
        count_host_time(start);
        break;
      case ActionKind::recv_forward:
      case ActionKind::recv_backward:
        executor_->receive(index, peer_of(action));
        break;
      case ActionKind::reduce_tied:
      case ActionKind::reduce_grad:
        pending_.push_back(index);
        return;
      case ActionKind::optimizer_step:
        step(index);
        return;
      case ActionKind::unshard:
      case ActionKind::reshard:
        return;
    }
  } catch (const Error& error) {
    const bool message = has_microbatch(action.kind) && !is_compute(action.kind);
    const std::string peer = message ? " " + describe_peer(action) : "";
    throw Error(error.kind(), fmt::format("{}: {}{}: {}", name_, to_string(action), peer, error.what()));
  }
  record(index, start, executor_->bytes_of(action));
}

void Worker::count_host_time(Clock::time_point start) {
  result_.host_time += std::chrono::duration<double>(Clock::now() - start).count();
}

int Worker::peer_of(const Action& action) const {
  const bool next = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_backward;
  const RankId rank = placement_.rank(StageId{action.stage.value + (next ? 1 : -1)}, action.microbatch);
  return worker_number(plan_, {place_.replica, place_.shard, rank.value});
}

std::string Worker::describe_peer(const Action& action) const {
  const bool sends = action.kind == ActionKind::send_forward || action.kind == ActionKind::send_backward;
  return fmt::format("{} rank {}", sends ? "to" : "from", peer_of(action) % plan_.ranks());
}

void Worker::record(std::size_t index, Clock::time_point start, std::int64_t bytes) {
  if (events_.empty()) return;
  const auto since = [&](Clock::time_point time) {
    return Seconds(std::chrono::duration<double>(time - origin_).count());
  };
  recorded().push_back({index,
                        {static_cast<int>(step_), place_.replica, RankId{place_.rank}, actions_[index], since(start),
                         since(Clock::now()), Bytes(static_cast<double>(bytes)), place_.shard}});
}

// A device that works on its own knows better when it did what it was told.
void Worker::take_device_times() {
  if (events_.empty()) return;
  clocks_[static_cast<std::size_t>(step_) % clocks_.size()] = executor_->clock().value_or(0);
  for (auto& [index, event] : recorded()) {
    const auto time = executor_->device_time(index);
    if (!time) continue;
    event.start = Seconds(std::chrono::duration<double>(time->start - origin_).count());
    event.end = Seconds(std::chrono::duration<double>(time->end - origin_).count());
  }
}

double Worker::clock() const {
  std::vector<double> known;
  std::copy_if(clocks_.begin(), clocks_.end(), std::back_inserter(known), [](double clock) { return clock > 0; });
  return known.empty() ? 0 : median(known);
}

std::vector<TraceEvent> Worker::events() const {
  std::vector<TraceEvent> all;
  for (const auto& step : events_) {
    for (const auto& [index, event] : step) all.push_back(event);
  }
  std::stable_sort(all.begin(), all.end(), [](const TraceEvent& a, const TraceEvent& b) { return a.step < b.step; });
  return all;
}

// Draws the micro-batch's part of the data.
void Worker::fetch(std::int64_t step, std::int64_t microbatch, std::span<std::int32_t> tokens,
                   std::span<std::int32_t> targets) {
  if (tokens.empty() && targets.empty()) return;
  const Batch& batch = plan_.batch;
  const std::int64_t slices = plan_.schedule.slices;
  const auto length = static_cast<std::size_t>(batch.sequence / slices);
  sample_.resize(2 * static_cast<std::size_t>(batch.sequence));
  const std::span<std::int32_t> whole(sample_);
  const auto all_tokens = whole.first(whole.size() / 2), all_targets = whole.last(whole.size() / 2);
  for (std::int64_t i = 0; i < batch.microbatch; ++i) {
    const std::int64_t sample = (place_.replica * batch.microbatches + microbatch / slices) * batch.microbatch + i;
    data_.sample(seed_, step, sample, all_tokens, all_targets);
    const auto take = [&](std::span<std::int32_t> from, std::span<std::int32_t> to) {
      if (to.empty()) return;
      const auto slice = from.subspan(static_cast<std::size_t>(microbatch % slices) * length, length);
      std::copy(slice.begin(), slice.end(),
                to.begin() + static_cast<std::ptrdiff_t>(i) * static_cast<std::ptrdiff_t>(length));
    };
    take(all_tokens, tokens);
    take(all_targets, targets);
  }
}

// What the first STEP waits for: the reductions so far, and the length of the whole gradient.
void Worker::finish_gradients() {
  with_context("gradients of norms", [&] { executor_->sum_shard_gradients(); });
  // All ranks take them in one order, so that nobody waits in a circle.
  std::sort(pending_.begin(), pending_.end(), [&](std::size_t a, std::size_t b) {
    return std::tuple(actions_[a].kind, actions_[a].stage) < std::tuple(actions_[b].kind, actions_[b].stage);
  });
  for (const std::size_t index : pending_) {
    const auto start = Clock::now();
    with_context(to_string(actions_[index]), [&] { executor_->reduce(index); });
    record(index, start, executor_->bytes_of(actions_[index]));
  }
  pending_.clear();
  if (optimizer_.clip_norm) with_context("norm of the gradient", [&] { clip(); });
}

void Worker::clip() {
  const double squares = executor_->squared_gradient_norm();
  // Replicas that share the optimizer's state have each the sums of their shares alone.
  const bool shared = plan_.layout.zero > 0;
  std::vector<int> members(static_cast<std::size_t>(shared ? worker_count(plan_) : plan_.shards() * plan_.ranks()));
  std::iota(members.begin(), members.end(), shared ? 0 : worker_number(plan_, {place_.replica, 0, 0}));
  result_.gradient_norm = std::sqrt(sum(transport_, members, {Lane::control, 0, -1}, squares));
  gradient_scale_ = std::min(1.0, *optimizer_.clip_norm / result_.gradient_norm);
}

void Worker::step(std::size_t index) {
  // An asynchronous update is one stage's own, while others are elsewhere in the step: nobody knows the length of the
  // whole gradient.
  if (plan_.schedule.updates == WeightUpdates::synchronous && !gradients_finished_) {
    finish_gradients();
    gradients_finished_ = true;
  }
  const auto start = Clock::now();
  executor_->optimizer_step(index, learning_rate(optimizer_, step_, last_step_), gradient_scale_);
  record(index, start, 0);
}

}  // namespace stagecraft
