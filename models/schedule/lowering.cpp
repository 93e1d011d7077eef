#include <algorithm>
#include <cstddef>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

// Appends lowered actions to every rank's list; a rank's computations go through add() in their order.
class Lowering {
 public:
  Lowering(const ComputeSchedule& schedule, const LoweringOptions& options, Receives receives)
      : schedule_(schedule),
        options_(options),
        receives_(receives),
        placement_(schedule),
        last_stage_{schedule.stages - 1},
        lowered_{schedule.name, schedule.stages, schedule.microbatches, {}} {
    tied_ =
        options.tied_ends && !schedule.forward_only && placement_.ranks(StageId{0}) != placement_.ranks(last_stage_);
    lowered_.ranks.resize(schedule.ranks.size());
    left_.resize(schedule.ranks.size());
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      lowered_.ranks[rank].reserve(3 * schedule.ranks[rank].size() + 8);
      left_[rank].resize(static_cast<std::size_t>(schedule.stages));
      for (const Action& action : schedule.ranks[rank]) left(rank, action.stage) += makes_gradient(action.kind) ? 1 : 0;
    }
  }

  LoweredSchedule run() {
    if (receives_ == Receives::at_need) {
      for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
        for (std::size_t at = 0; at < schedule_.ranks[rank].size();) at += add(rank, at);
      }
    } else {
      take_turns();
    }
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && !schedule_.forward_only; ++rank) add_ending(rank);
    return std::move(lowered_);
  }

 private:
  static bool makes_gradient(ActionKind kind) {
    return kind == ActionKind::backward || kind == ActionKind::backward_weight;
  }
  static bool is_backward(ActionKind kind) {
    return kind == ActionKind::backward || kind == ActionKind::backward_input;
  }
  int& left(std::size_t rank, StageId stage) { return left_[rank][static_cast<std::size_t>(stage.value)]; }
  bool is_tied(StageId stage) const { return tied_ && (stage.value == 0 || stage == last_stage_); }
  bool is_summed(StageId stage) const { return options_.data_parallel || placement_.is_shared(stage); }
  // Whether the stage's gradient is whole only at the end: after REDUCE_TIED, which must not hold up the rank's other
  // work, or because the last stage is on this rank, too, and may add to a table that both use.
  bool is_late(std::size_t rank, StageId stage) const {
    const bool with_last = stage.value == 0 && last_stage_.value > 0 &&
                           placement_.on(last_stage_, RankId{static_cast<std::int32_t>(rank)});
    return is_tied(stage) || with_last;
  }
  bool exists(StageId stage) const { return stage.value >= 0 && stage.value <= last_stage_.value; }
  void append(std::size_t rank, ActionKind kind, StageId stage, MicrobatchId microbatch = MicrobatchId{-1}) {
    lowered_.ranks[rank].push_back({kind, stage, microbatch});
  }

  // The stage whose tensor the action needs, and the one that needs what it makes; may not exist.
  static StageId source_of(const Action& action) {
    return {action.stage.value + (action.kind == ActionKind::forward ? -1 : 1)};
  }
  static StageId target_of(const Action& action) {
    return {action.stage.value + (action.kind == ActionKind::forward ? 1 : -1)};
  }
  bool crosses(std::size_t rank, StageId other, MicrobatchId microbatch) const {
    return exists(other) && placement_.rank(other, microbatch).value != static_cast<std::int32_t>(rank);
  }

  // The computation at `at`, or the overlapped pair there, with its messages. Returns how many it was.
  std::size_t add(std::size_t rank, std::size_t at) {
    const std::vector<Action>& actions = schedule_.ranks[rank];
    const std::size_t count = actions[at].overlapped ? 2 : 1;
    for (std::size_t i = at; i < at + count && receives_ == Receives::at_need; ++i) add_receive(rank, actions[i]);
    for (std::size_t i = at; i < at + count; ++i) lowered_.ranks[rank].push_back(actions[i]);
    for (std::size_t i = at; i < at + count; ++i) add_send(rank, actions[i]);
    for (std::size_t i = at; i < at + count; ++i) add_sums(rank, actions[i]);
    return count;
  }

  void add_receive(std::size_t rank, const Action& action) {
    if (action.kind == ActionKind::backward_weight || !crosses(rank, source_of(action), action.microbatch)) return;
    append(rank, action.kind == ActionKind::forward ? ActionKind::recv_forward : ActionKind::recv_backward,
           action.stage, action.microbatch);
  }

  void add_send(std::size_t rank, const Action& action) {
    const StageId target = target_of(action);
    if (action.kind == ActionKind::backward_weight || !crosses(rank, target, action.microbatch)) return;
    const bool forward = action.kind == ActionKind::forward;
    append(rank, forward ? ActionKind::send_forward : ActionKind::send_backward, action.stage, action.microbatch);
    if (receives_ == Receives::at_need) return;
    const auto receiver = static_cast<std::size_t>(placement_.rank(target, action.microbatch).value);
    append(receiver, forward ? ActionKind::recv_forward : ActionKind::recv_backward, target, action.microbatch);
  }

  // What follows a stage's last weight gradient, or in asynchronous schedules each of its updates.
  void add_sums(std::size_t rank, const Action& action) {
    if (!makes_gradient(action.kind)) return;
    const bool last = --left(rank, action.stage) == 0;
    if (schedule_.updates != WeightUpdates::synchronous) {
      const int done = schedule_.microbatches - left(rank, action.stage);
      if (done % schedule_.update_group != 0 && !last) return;
      append(rank, ActionKind::optimizer_step, action.stage, action.microbatch);
    } else if (last && is_summed(action.stage) && !is_late(rank, action.stage)) {
      append(rank, ActionKind::reduce_grad, action.stage);
    }
  }

  void add_ending(std::size_t rank) {
    if (schedule_.updates != WeightUpdates::synchronous) return;
    const RankId id{static_cast<std::int32_t>(rank)};
    for (std::int32_t s = 0; s < schedule_.stages; ++s) {
      if (!is_late(rank, StageId{s}) || !placement_.on(StageId{s}, id)) continue;
      if (is_tied(StageId{s})) append(rank, ActionKind::reduce_tied, StageId{s});
      if (is_summed(StageId{s})) append(rank, ActionKind::reduce_grad, StageId{s});
    }
    for (std::int32_t s = 0; s < schedule_.stages; ++s) {
      if (placement_.on(StageId{s}, id)) append(rank, ActionKind::optimizer_step, StageId{s});
    }
  }

  // A computation a rank and round, as far as inputs are there (torch's _add_send_recv). Both ends of a message come to
  // the ends of their lists at the same moment, so that any two ranks have their messages in one order and nobody waits
  // in a circle.
  void take_turns() {
    std::vector<std::uint8_t> ran(static_cast<std::size_t>(schedule_.stages) *
                                  static_cast<std::size_t>(schedule_.microbatches));
    const auto flags = [&](StageId stage, MicrobatchId microbatch) -> std::uint8_t& {
      return ran[static_cast<std::size_t>(stage.value) * static_cast<std::size_t>(schedule_.microbatches) +
                 static_cast<std::size_t>(microbatch.value)];
    };
    const auto bit = [](const Action& action) {
      return static_cast<std::uint8_t>(action.kind == ActionKind::forward ? 1 : is_backward(action.kind) ? 2 : 0);
    };
    const auto ready = [&](const Action& action) {
      const StageId source = source_of(action);
      return bit(action) == 0 || !exists(source) || (flags(source, action.microbatch) & bit(action)) != 0;
    };
    std::vector<std::size_t> position(schedule_.ranks.size());
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < position.size(); ++rank) {
        const auto& actions = schedule_.ranks[rank];
        std::size_t& at = position[rank];
        if (at == actions.size() || !ready(actions[at])) continue;
        if (actions[at].overlapped && !ready(actions[at + 1])) continue;
        for (std::size_t end = at + add(rank, at); at < end; ++at) {
          flags(actions[at].stage, actions[at].microbatch) |= bit(actions[at]);
        }
        moved = true;
      }
    }
  }

  const ComputeSchedule& schedule_;
  const LoweringOptions& options_;
  Receives receives_;
  Placement placement_;
  StageId last_stage_;
  bool tied_ = false;
  std::vector<std::vector<int>> left_;  // [rank][stage], weight gradients to come
  LoweredSchedule lowered_;
};

}  // namespace

LoweredSchedule lower(const ComputeSchedule& schedule, const LoweringOptions& options, Receives receives) {
  const auto faults = check(schedule);
  if (!faults.empty()) throw bad_input("schedule '{}': {}", schedule.name, faults.front().message);
  return Lowering(schedule, options, receives).run();
}

}  // namespace stagecraft
