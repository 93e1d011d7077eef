#include "runtime/cpu/rank_executor.hpp"

#include <algorithm>
#include <cassert>

#include "runtime/collectives.hpp"
#include "runtime/memory_need.hpp"

namespace stagecraft::cpu {

RankExecutor::RankExecutor(const ExecutorContext& context) : context_(context) {
  if (context_.transport.workers() > 1) scratch_ = pool_.allocate_zeroed(collective_piece_floats, "reduction buffers");
  shards_ = ShardGroup(context_.transport, context_.shard_workers(), scratch_.span());
  make_stages();
  reserve_memory();
  list_parameters();
}

void RankExecutor::make_stages() {
  for (std::size_t s = 0; s < context_.plan.stages.size(); ++s) {
    if (!context_.plan.stages[s].on(RankId{context_.place.rank})) continue;
    const auto number = static_cast<int>(s);
    // A later stage of this rank reads the table where the first one has it.
    std::optional<ParameterView> table;
    if (const auto first = stages_.find(0); first != stages_.end()) table = first->second->parameters().view(0);
    const StageSpec spec = stage_spec(context_.plan, s, context_.place.shard);
    const auto& stage = stages_[number] = std::make_unique<Stage>(spec, table, pool_, shards_);
    if (context_.plan.schedule.updates == WeightUpdates::synchronous) continue;
    versions_.try_emplace(number, context_.plan.schedule, StageId{number}, stage->parameters(), pool_);
  }
}

// Takes what the steps will need, and gives it back to the pool: micro-batches in flight, messages, workspace.
void RankExecutor::reserve_memory() {
  std::int64_t workspace = 0;
  for (const auto& entry : stages_) workspace = std::max(workspace, entry.second->layout().workspace);
  workspace_ = pool_.allocate_zeroed(workspace, "workspace");
  std::vector<Buffer> reserved;
  for (const auto& [number, stage] : stages_) {
    stage->set_workspace(workspace_.data());
    const InFlight open = count_in_flight(context_.plan.schedule, context_.actions(), context_.placement,
                                          RankId{context_.place.rank}, StageId{number});
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
    for (int i = most_versions(context_.plan.schedule, StageId{number}); i > 0; --i) {
      const auto floats = static_cast<std::int64_t>(stage->parameters().all_values().size());
      reserved.push_back(pool_.allocate_zeroed(floats, "older weights"));
    }
  }
}

void RankExecutor::list_parameters() {
  for (const auto& [number, stage] : stages_) {
    const auto& entries = stage->parameters().entries();
    const LayerRange& layers = context_.plan.stages[static_cast<std::size_t>(number)].layers;
    auto held = held_parameters(*context_.plan.network.transformer, layers.first, layers.last,
                                tensor_shard(context_.plan, context_.place.shard), entries.back().copy);
    assert(held.size() == entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      assert(held[i].slice.count() == entries[i].parameter.count());
      parameters_.push_back(std::move(held[i]));
      places_.emplace_back(&stage->parameters(), i);
    }
  }
}

std::span<float> RankExecutor::place_of(std::size_t parameter, int state) const {
  const auto& [store, position] = places_[parameter];
  const ParameterStore::Entry& entry = store->entries()[position];
  return state < 0 ? store->values(entry) : store->state(state, entry);
}

void RankExecutor::read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const {
  const auto from = place_of(parameter, state).subspan(static_cast<std::size_t>(first), to.size());
  std::copy(from.begin(), from.end(), to.begin());
}

void RankExecutor::write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) {
  std::copy(from.begin(), from.end(), place_of(parameter, state).begin() + static_cast<std::ptrdiff_t>(first));
}

Stage* RankExecutor::local(int stage, std::int64_t microbatch) {
  const auto found = stages_.find(stage);
  if (found == stages_.end()) return nullptr;
  const RankId rank = context_.placement.rank(StageId{stage}, MicrobatchId{static_cast<std::int32_t>(microbatch)});
  return rank.value == context_.place.rank ? found->second.get() : nullptr;
}

std::int64_t RankExecutor::bytes_of(const Action& action) const {
  if (is_compute(action.kind) || action.kind == ActionKind::optimizer_step) return 0;
  const Stage& stage = *stages_.at(action.stage.value);
  if (has_microbatch(action.kind)) {
    // Of any tensor of the size.
    const auto boundary = static_cast<std::size_t>(stage.layout().boundary);
    return static_cast<std::int64_t>(share(workspace_.span().first(boundary)).size_bytes());
  }
  return 4 * (action.kind == ActionKind::reduce_tied
                  ? stage.table()->parameter.count()
                  : static_cast<std::int64_t>(stage.parameters().all_gradients().size()));
}

void RankExecutor::begin_step(std::int64_t step, bool /*timed*/) {
  assert(outputs_.empty() && d_outputs_.empty() && d_inputs_.empty());
  step_ = step;
  loss_sum_ = 0;
  for (auto& entry : versions_) entry.second.begin_step();
}

void RankExecutor::compute(std::size_t index) {
  const Action& action = context_.actions()[index];
  const auto run = [&] { action.kind == ActionKind::forward ? forward(action) : backward(action); };
  const auto versions = versions_.find(action.stage.value);
  if (versions == versions_.end()) return run();
  versions->second.with(action.microbatch, run);
  const bool last = action.kind == ActionKind::backward || action.kind == ActionKind::backward_weight;
  if (last) versions->second.done(action.microbatch);
}

void RankExecutor::send(std::size_t index, int peer) {
  const Action& action = context_.actions()[index];
  const bool forward = action.kind == ActionKind::send_forward;
  const Lane lane = forward ? Lane::forward : Lane::backward;
  auto& made = forward ? outputs_ : d_inputs_;
  const auto tensor = made.find({action.stage.value, action.microbatch.value});
  context_.transport.send(peer, {lane, action.stage.value, action.microbatch.value},
                          std::as_bytes(share(tensor->second.span())));
  made.erase(tensor);
}

void RankExecutor::receive(std::size_t index, int peer) {
  const Action& action = context_.actions()[index];
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  Stage& at = stage_of(action);
  if (action.kind == ActionKind::recv_forward) {
    open(stage, microbatch);
    const std::span input(at.input(microbatch), static_cast<std::size_t>(at.layout().boundary));
    receive_share(peer, {Lane::forward, stage - 1, action.microbatch.value}, input);
  } else {
    Buffer& buffer = d_outputs_[{stage, microbatch}] = pool_.allocate(at.layout().boundary, "messages");
    receive_share(peer, {Lane::backward, stage + 1, action.microbatch.value}, buffer.span());
  }
}

std::span<float> RankExecutor::share(std::span<float> tensor) const {
  const TensorShard shard = tensor_shard(context_.plan, context_.place.shard);
  if (shard.count == 1 || shard.sequence_parallel) return tensor;
  return ring_part(tensor, static_cast<std::size_t>(shard.index), static_cast<std::size_t>(shard.count));
}

void RankExecutor::receive_share(int peer, const MessageTag& tag, std::span<float> tensor) {
  const std::span<float> part = share(tensor);
  context_.transport.receive(peer, tag, std::as_writable_bytes(part));
  if (part.size() < tensor.size()) shards_.gather(tensor);
}

// Takes the micro-batch's slab and fetches its part of the data.
void RankExecutor::open(int stage, std::int64_t microbatch) {
  Stage& at = *local(stage, microbatch);
  at.open(microbatch);
  context_.fetch(step_, microbatch, at.tokens(microbatch), at.targets(microbatch));
}

void RankExecutor::forward(const Action& action) {
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  Stage& at = stage_of(action);
  if (at.has_embedding()) open(stage, microbatch);
  float* output = nullptr;
  if (Stage* const next = local(stage + 1, microbatch); next != nullptr) {
    open(stage + 1, microbatch);
    output = next->input(microbatch);
  } else if (!at.has_head()) {
    output = (outputs_[{stage, microbatch}] = pool_.allocate(at.layout().boundary, "messages")).data();
  }
  loss_sum_ += at.forward(microbatch, output);
  if (context_.plan.schedule.forward_only) at.discard(microbatch);
}

void RankExecutor::backward(const Action& action) {
  const int stage = action.stage.value;
  const std::int64_t microbatch = action.microbatch.value;
  Stage& at = stage_of(action);
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

void RankExecutor::reduce(std::size_t index) {
  const Action& action = context_.actions()[index];
  const Stage& stage = stage_of(action);
  const ParameterStore& parameters = stage.parameters();
  if (action.kind == ActionKind::reduce_tied) {
    pair_sum(context_.transport, context_.worker_of(context_.plan.stages.front().rank),
             context_.worker_of(context_.plan.stages.back().rank), {Lane::tied, 0, -1},
             parameters.gradients(*stage.table()), scratch_.span());
    return;
  }
  const std::vector<int> members = context_.replica_workers(action.stage);
  const MessageTag tag{Lane::gradient, action.stage.value, -1};
  // A tied table is reduced on its own, so that both its copies are summed in the same order.
  const std::span<float> all = parameters.all_gradients();
  if (stage.table() == nullptr) return ring_all_reduce(context_.transport, members, tag, all, scratch_.span());
  const auto first = static_cast<std::size_t>(stage.table()->offset);
  const auto table = parameters.gradients(*stage.table());
  ring_all_reduce(context_.transport, members, tag, all.first(first), scratch_.span());
  ring_all_reduce(context_.transport, members, tag, table, scratch_.span());
  ring_all_reduce(context_.transport, members, tag, all.subspan(first + table.size()), scratch_.span());
}

void RankExecutor::sum_shard_gradients() {
  for (const auto& entry : stages_) entry.second->sum_shard_gradients();
}

double RankExecutor::squared_gradient_norm() {
  double squares = 0;
  for (const auto& [number, stage] : stages_) {
    if (context_.placement.ranks(StageId{number}).front().value != context_.place.rank) continue;
    squares += stage->parameters().squared_gradient_norm(context_.place.shard > 0);
  }
  return squares;
}

void RankExecutor::optimizer_step(std::size_t index, double rate, double gradient_scale) {
  const Action& action = context_.actions()[index];
  if (!versions_.empty()) return update(action, rate);
  stage_of(action).parameters().step(context_.options.optimizer, rate, step_, gradient_scale);
}

// Of one stage on its own, in an asynchronous schedule.
void RankExecutor::update(const Action& action, double rate) {
  const ComputeSchedule& schedule = context_.plan.schedule;
  VersionedWeights& versions = versions_.at(action.stage.value);
  const std::int64_t updates_a_step = (schedule.microbatches + schedule.update_group - 1) / schedule.update_group;
  versions.keep_current();
  stage_of(action).parameters().step(context_.options.optimizer, rate,
                                     (step_ - 1) * updates_a_step + versions.updates() + 1, 1);
  versions.count_update();
}

}  // namespace stagecraft::cpu
