#include "runtime/worker.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <tuple>

#include "runtime/collectives.hpp"
#include "runtime/memory_need.hpp"

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
      replica_(transport.worker() / plan.ranks()),
      rank_(transport.worker() % plan.ranks()),
      last_step_(options.steps),
      events_(static_cast<std::size_t>(std::max(options.trace_steps, 0))) {
  with_context(fmt::format("rank {}", rank_), [&] {
    make_stages();
    reserve_memory();
  });
  for (auto& events : events_) events.reserve(actions_.size());
}

void Worker::make_stages() {
  for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
    if (!plan_.stages[s].on(RankId{rank_})) continue;
    const auto number = static_cast<int>(s);
    // A later stage of this rank reads the table where the first one has it.
    std::optional<cpu::ParameterView> table;
    if (const auto first = stages_.find(0); first != stages_.end()) table = first->second->parameters().view(0);
    const auto& stage = stages_[number] = std::make_unique<cpu::Stage>(stage_spec(plan_, s), table, pool_);
    if (plan_.schedule.updates == WeightUpdates::synchronous) continue;
    versions_.try_emplace(number, plan_.schedule, StageId{number}, stage->parameters(), pool_);
  }
}

// Takes what the steps will need, and gives it back to the pool: micro-batches in flight, messages, workspace.
void Worker::reserve_memory() {
  std::int64_t workspace = 0;
  for (const auto& entry : stages_) workspace = std::max(workspace, entry.second->layout().workspace);
  workspace_ = pool_.allocate_zeroed(workspace, "workspace");
  if (transport_.workers() > 1) scratch_ = pool_.allocate_zeroed(collective_piece_floats, "reduction buffers");
  std::vector<Buffer> reserved;
  for (const auto& [number, stage] : stages_) {
    stage->set_workspace(workspace_.data());
    const InFlight open = count_in_flight(plan_.schedule, actions_, placement_, RankId{rank_}, StageId{number});
    for (int i = 0; i < open.slabs; ++i) {
      reserved.push_back(pool_.allocate_zeroed(stage->layout().slab, "activations"));
    }
    for (int i = 0; i < open.splits; ++i) {
      reserved.push_back(pool_.allocate_zeroed(stage->layout().split, "gradients of activations"));
    }
    for (int i = 0; i < open.caches; ++i) {
      reserved.push_back(pool_.allocate_zeroed(stage->layout().cache, "keys and values"));
    }
    for (int i = (stage->has_embedding() ? 0 : 1) + (stage->has_head() ? 0 : 1); i > 0; --i) {
      reserved.push_back(pool_.allocate_zeroed(stage->layout().boundary, "messages"));
    }
    for (int i = most_versions(plan_.schedule, StageId{number}); i > 0; --i) {
      const auto floats = static_cast<std::int64_t>(stage->parameters().all_values().size());
      reserved.push_back(pool_.allocate_zeroed(floats, "older weights"));
    }
  }
}

cpu::Stage* Worker::local(int stage, std::int64_t microbatch) {
  const auto found = stages_.find(stage);
  if (found == stages_.end()) return nullptr;
  const RankId rank = placement_.rank(StageId{stage}, MicrobatchId{static_cast<std::int32_t>(microbatch)});
  return rank.value == rank_ ? found->second.get() : nullptr;
}

std::vector<cpu::Stage*> Worker::stages() {
  std::vector<cpu::Stage*> list;
  for (const auto& entry : stages_) list.push_back(entry.second.get());
  return list;
}

StepResult Worker::run_step(std::int64_t step, Clock::time_point origin) {
  step_ = step;
  origin_ = origin;
  result_ = {};
  gradient_scale_ = 1;
  gradients_finished_ = false;
  for (auto& entry : versions_) entry.second.begin_step();
  if (!events_.empty()) events_[static_cast<std::size_t>(step) % events_.size()].clear();
  for (const Action& action : actions_) execute(action);
  assert(outputs_.empty() && d_outputs_.empty() && d_inputs_.empty() && pending_.empty());
  return result_;
}

void Worker::execute(const Action& action) {
  const auto start = Clock::now();
  try {
    switch (action.kind) {
      case ActionKind::forward:
      case ActionKind::backward:
      case ActionKind::backward_input:
      case ActionKind::backward_weight:
        compute(action);
        break;
      case ActionKind::send_forward:
        send(action, outputs_);
        break;
      case ActionKind::send_backward:
        send(action, d_inputs_);
        break;
      case ActionKind::recv_forward:
      case ActionKind::recv_backward:
        receive(action);
        break;
      case ActionKind::reduce_tied:
      case ActionKind::reduce_grad:
        pending_.push_back(action);
        return;
      case ActionKind::optimizer_step:
        optimizer_step(action);
        return;
      case ActionKind::unshard:
      case ActionKind::reshard:
        return;
    }
  } catch (const Error& error) {
    const bool message = has_microbatch(action.kind) && !is_compute(action.kind);
    const std::string peer = message ? " " + describe_peer(action) : "";
    throw Error(error.kind(), fmt::format("rank {}: {}{}: {}", rank_, to_string(action), peer, error.what()));
  }
  record(action, start, is_compute(action.kind) ? 0 : stage_of(action).layout().boundary * 4);
}

void Worker::compute(const Action& action) {
  const auto run = [&] { action.kind == ActionKind::forward ? forward(action) : backward(action); };
  const auto versions = versions_.find(action.stage.value);
  if (versions == versions_.end()) return run();
  versions->second.with(action.microbatch, run);
  const bool last = action.kind == ActionKind::backward || action.kind == ActionKind::backward_weight;
  if (last) versions->second.done(action.microbatch);
}

// The worker at the other end of a message.
int Worker::peer_of(const Action& action) const {
  const bool next = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_backward;
  return worker_of(placement_.rank(StageId{action.stage.value + (next ? 1 : -1)}, action.microbatch));
}

std::string Worker::describe_peer(const Action& action) const {
  const bool sends = action.kind == ActionKind::send_forward || action.kind == ActionKind::send_backward;
  return fmt::format("{} rank {}", sends ? "to" : "from", peer_of(action) % plan_.ranks());
}

void Worker::send(const Action& action, std::map<Key, Buffer>& made) {
  const Lane lane = action.kind == ActionKind::send_forward ? Lane::forward : Lane::backward;
  const auto tensor = made.find({action.stage.value, action.microbatch.value});
  transport_.send(peer_of(action), {lane, action.stage.value, action.microbatch.value}, tensor->second.bytes());
  made.erase(tensor);
}

void Worker::receive(const Action& action) {
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  cpu::Stage& at = stage_of(action);
  if (action.kind == ActionKind::recv_forward) {
    open(stage, microbatch);
    const std::span input(at.input(microbatch), static_cast<std::size_t>(at.layout().boundary));
    transport_.receive(peer_of(action), {Lane::forward, stage - 1, action.microbatch.value},
                       std::as_writable_bytes(input));
  } else {
    Buffer& buffer = d_outputs_[{stage, microbatch}] = pool_.allocate(at.layout().boundary, "messages");
    transport_.receive(peer_of(action), {Lane::backward, stage + 1, action.microbatch.value}, buffer.bytes());
  }
}

void Worker::record(const Action& action, Clock::time_point start, std::int64_t bytes) {
  if (events_.empty()) return;
  const auto since = [&](Clock::time_point time) {
    return Seconds(std::chrono::duration<double>(time - origin_).count());
  };
  events_[static_cast<std::size_t>(step_) % events_.size()].push_back({static_cast<int>(step_), replica_, RankId{rank_},
                                                                       action, since(start), since(Clock::now()),
                                                                       Bytes(static_cast<double>(bytes))});
}

std::vector<TraceEvent> Worker::events() const {
  std::vector<TraceEvent> all;
  for (const auto& step : events_) all.insert(all.end(), step.begin(), step.end());
  std::stable_sort(all.begin(), all.end(), [](const TraceEvent& a, const TraceEvent& b) { return a.step < b.step; });
  return all;
}

// Takes the micro-batch's slab and fetches its part of the data.
void Worker::open(int stage, std::int64_t microbatch) {
  cpu::Stage& at = *local(stage, microbatch);
  at.open(microbatch);
  const std::span<std::int32_t> tokens = at.tokens(microbatch), targets = at.targets(microbatch);
  if (tokens.empty() && targets.empty()) return;
  const Batch& batch = plan_.batch;
  const std::int64_t slices = plan_.schedule.slices;
  const auto length = static_cast<std::size_t>(batch.sequence / slices);
  sample_.resize(2 * static_cast<std::size_t>(batch.sequence));
  const std::span<std::int32_t> whole(sample_);
  const auto all_tokens = whole.first(whole.size() / 2), all_targets = whole.last(whole.size() / 2);
  for (std::int64_t i = 0; i < batch.microbatch; ++i) {
    const std::int64_t sample = (replica_ * batch.microbatches + microbatch / slices) * batch.microbatch + i;
    data_.sample(seed_, step_, sample, all_tokens, all_targets);
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

void Worker::forward(const Action& action) {
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  cpu::Stage& at = stage_of(action);
  if (at.has_embedding()) open(stage, microbatch);
  float* output = nullptr;
  if (cpu::Stage* const next = local(stage + 1, microbatch); next != nullptr) {
    open(stage + 1, microbatch);
    output = next->input(microbatch);
  } else if (!at.has_head()) {
    output = (outputs_[{stage, microbatch}] = pool_.allocate(at.layout().boundary, "messages")).data();
  }
  result_.loss_sum += at.forward(microbatch, output);
  if (plan_.schedule.forward_only) at.discard(microbatch);
}

void Worker::backward(const Action& action) {
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  cpu::Stage& at = stage_of(action);
  if (action.kind == ActionKind::backward_weight) return at.backward_weight(microbatch);

  const auto arrived = d_outputs_.find({stage, microbatch});
  const float* const d_output = arrived == d_outputs_.end() ? nullptr : arrived->second.data();
  float* d_input = nullptr;
  if (!at.has_embedding()) {
    const bool stays = local(stage - 1, microbatch) != nullptr;
    Buffer& made = stays ? d_outputs_[{stage - 1, microbatch}] : d_inputs_[{stage, microbatch}];
    made = pool_.allocate(at.layout().boundary, "messages");
    d_input = made.data();
  }
  if (action.kind == ActionKind::backward) {
    at.backward(microbatch, d_output, d_input);
  } else {
    at.backward_input(microbatch, d_output, d_input);
  }
  if (arrived != d_outputs_.end()) d_outputs_.erase(arrived);
}

// What the first STEP waits for: the reductions so far, and the length of the whole gradient.
void Worker::finish_gradients() {
  // All ranks take them in one order, so that nobody waits in a circle.
  std::sort(pending_.begin(), pending_.end(),
            [](const Action& a, const Action& b) { return std::tuple(a.kind, a.stage) < std::tuple(b.kind, b.stage); });
  for (const Action& action : pending_) {
    const auto start = Clock::now();
    with_context(to_string(action), [&] { reduce(action); });
    const cpu::Stage& stage = stage_of(action);
    const std::int64_t floats = action.kind == ActionKind::reduce_tied
                                    ? stage.table()->parameter.count()
                                    : static_cast<std::int64_t>(stage.parameters().all_gradients().size());
    record(action, start, floats * 4);
  }
  pending_.clear();
  if (optimizer_.clip_norm) with_context("norm of the gradient", [&] { clip(); });
}

void Worker::clip() {
  double squares = 0;
  for (const auto& [number, stage] : stages_) {
    // A stage on two ranks counts once.
    if (placement_.ranks(StageId{number}).front().value != rank_) continue;
    squares += stage->parameters().squared_gradient_norm();
  }
  std::vector<int> members;
  for (int rank = 0; rank < plan_.ranks(); ++rank) members.push_back(replica_ * plan_.ranks() + rank);
  result_.gradient_norm = std::sqrt(sum(transport_, members, {Lane::control, 0, -1}, squares));
  gradient_scale_ = std::min(1.0, *optimizer_.clip_norm / result_.gradient_norm);
}

void Worker::reduce(const Action& action) {
  const cpu::Stage& stage = stage_of(action);
  const cpu::ParameterStore& parameters = stage.parameters();
  if (action.kind == ActionKind::reduce_tied) {
    pair_sum(transport_, worker_of(plan_.stages.front().rank), worker_of(plan_.stages.back().rank), {Lane::tied, 0, -1},
             parameters.gradients(*stage.table()), scratch_.span());
    return;
  }
  std::vector<int> members;
  for (int replica = 0; replica < plan_.replicas(); ++replica) {
    for (const RankId rank : placement_.ranks(action.stage)) members.push_back(replica * plan_.ranks() + rank.value);
  }
  const MessageTag tag{Lane::gradient, action.stage.value, -1};
  // A tied table is reduced on its own, so that both its copies are summed in the same order.
  const std::span<float> all = parameters.all_gradients();
  if (stage.table() == nullptr) return ring_all_reduce(transport_, members, tag, all, scratch_.span());
  const auto first = static_cast<std::size_t>(stage.table()->offset);
  const auto table = parameters.gradients(*stage.table());
  ring_all_reduce(transport_, members, tag, all.first(first), scratch_.span());
  ring_all_reduce(transport_, members, tag, table, scratch_.span());
  ring_all_reduce(transport_, members, tag, all.subspan(first + table.size()), scratch_.span());
}

void Worker::optimizer_step(const Action& action) {
  if (!versions_.empty()) return update(action);
  if (!gradients_finished_) finish_gradients();
  gradients_finished_ = true;
  const auto start = Clock::now();
  stage_of(action).parameters().step(optimizer_, cpu::learning_rate(optimizer_, step_, last_step_), step_,
                                     gradient_scale_);
  record(action, start, 0);
}

// Of one stage on its own, while others are elsewhere in the step: nobody knows the length of the whole gradient.
void Worker::update(const Action& action) {
  const auto start = Clock::now();
  VersionedWeights& versions = versions_.at(action.stage.value);
  const std::int64_t updates_a_step =
      (plan_.schedule.microbatches + plan_.schedule.update_group - 1) / plan_.schedule.update_group;
  versions.keep_current();
  stage_of(action).parameters().step(optimizer_, cpu::learning_rate(optimizer_, step_, last_step_),
                                     (step_ - 1) * updates_a_step + versions.updates() + 1, 1);
  versions.count_update();
  record(action, start, 0);
}

}  // namespace stagecraft
