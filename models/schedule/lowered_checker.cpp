#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "models/schedule/checker.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_faults = 20;

// The other half of a message: 1SEND_F3 <-> 2RECV_F3, 2SEND_B3 <-> 1RECV_B3.
Action counterpart(const Action& action) {
  switch (action.kind) {
    case ActionKind::send_forward:
      return {ActionKind::recv_forward, StageId{action.stage.value + 1}, action.microbatch};
    case ActionKind::recv_forward:
      return {ActionKind::send_forward, StageId{action.stage.value - 1}, action.microbatch};
    case ActionKind::send_backward:
      return {ActionKind::recv_backward, StageId{action.stage.value - 1}, action.microbatch};
    default:
      return {ActionKind::send_backward, StageId{action.stage.value + 1}, action.microbatch};
  }
}

ComputeSchedule without_communication(const LoweredSchedule& schedule) {
  ComputeSchedule computes{schedule.name, schedule.stages, schedule.microbatches, {}};
  computes.forward_only = true;
  for (const auto& actions : schedule.ranks) {
    auto& rank = computes.ranks.emplace_back();
    for (const Action& action : actions) {
      if (!is_compute(action.kind)) continue;
      rank.push_back(action);
      if (action.kind != ActionKind::forward) computes.forward_only = false;
    }
  }
  return computes;
}

class LoweredCheck {
 public:
  LoweredCheck(const LoweredSchedule& schedule, int buffers, Pairing pairing)
      : schedule_(schedule), buffers_(buffers), pairing_(pairing) {}

  std::vector<ScheduleFault> run() {
    const ComputeSchedule computes = without_communication(schedule_);
    faults_ = check(computes);
    // Positions there count computations only.
    for (ScheduleFault& fault : faults_) fault.position = -1;
    if (!faults_.empty()) return std::move(faults_);
    forward_only_ = computes.forward_only;
    placement_.emplace(computes);
    const auto cells = static_cast<std::size_t>(schedule_.stages) * static_cast<std::size_t>(schedule_.microbatches);
    positions_.assign(cells * kinds_with_microbatch, -1);
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) index_rank(rank);
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) check_rank(rank);
    if (faults_.empty() && !forward_only_) check_endings();
    if (faults_.empty() && pairing_ == Pairing::by_order) check_pairing();
    if (faults_.empty()) check_deadlock();
    return std::move(faults_);
  }

 private:
  template <class... Args>
  void fault(std::size_t rank, int position, fmt::format_string<Args...> format, Args&&... args) {
    const Action& action = schedule_.ranks[rank][static_cast<std::size_t>(position)];
    faults_.push_back({static_cast<int>(rank), position,
                       fmt::format("rank {}, position {}: {}: {}", rank, position, to_string(action),
                                   fmt::format(format, std::forward<Args>(args)...))});
  }
  std::size_t owner(const Action& action) const {
    return static_cast<std::size_t>(placement_->rank(action.stage, action.microbatch).value);
  }
  bool exists(StageId stage) const { return stage.value >= 0 && stage.value < schedule_.stages; }

  int& position_of(const Action& action) {
    const std::size_t cell =
        static_cast<std::size_t>(action.stage.value) * static_cast<std::size_t>(schedule_.microbatches) +
        static_cast<std::size_t>(action.microbatch.value);
    return positions_[cell * kinds_with_microbatch + static_cast<std::size_t>(action.kind)];
  }
  // Position on its rank of an action with a micro-batch, or -1.
  int find(ActionKind kind, StageId stage, MicrobatchId microbatch) { return position_of({kind, stage, microbatch}); }
  int find(const Action& action) { return position_of(action); }
  // Position of the last action of a kind without micro-batch, or -1.
  int find_ending(std::size_t rank, ActionKind kind, StageId stage) const {
    const auto found = endings_.find({rank, kind, stage});
    return found == endings_.end() ? -1 : found->second;
  }

  void index_rank(std::size_t rank) {
    const auto& actions = schedule_.ranks[rank];
    for (std::size_t i = 0; i < actions.size() && faults_.size() < max_faults; ++i) {
      const Action& action = actions[i];
      const auto position = static_cast<int>(i);
      if (!exists(action.stage) || !placement_->on(action.stage, RankId{static_cast<std::int32_t>(rank)})) {
        fault(rank, position, "stage {} is not on this rank", action.stage.value);
      } else if (!has_microbatch(action.kind)) {
        const bool again = !endings_.insert_or_assign({rank, action.kind, action.stage}, position).second;
        const bool once = action.kind == ActionKind::reduce_tied || action.kind == ActionKind::reduce_grad ||
                          (action.kind == ActionKind::optimizer_step && action.microbatch.value < 0);
        if (again && once) fault(rank, position, "appears a second time");
      } else if (action.microbatch.value < 0 || action.microbatch.value >= schedule_.microbatches) {
        fault(rank, position, "no such micro-batch");
      } else if (owner(action) != rank) {
        fault(rank, position, "micro-batch {} of stage {} is on rank {}", action.microbatch.value, action.stage.value,
              owner(action));
      } else if (std::exchange(position_of(action), position) >= 0) {
        fault(rank, position, "appears a second time");
      }
    }
  }

  void check_rank(std::size_t rank) {
    const auto& actions = schedule_.ranks[rank];
    for (std::size_t i = 0; i < actions.size() && faults_.size() < max_faults; ++i) {
      const auto position = static_cast<int>(i);
      if (is_compute(actions[i].kind)) check_received(rank, position, actions[i]);
      if (is_send(actions[i].kind) || is_receive(actions[i].kind)) check_message(rank, position, actions[i]);
    }
  }

  // What a computation takes from another rank must be received before it, and what it makes for one sent after it.
  void check_received(std::size_t rank, int position, const Action& action) {
    if (action.kind == ActionKind::backward_weight) return;
    const bool forward = action.kind == ActionKind::forward;
    const StageId before{action.stage.value + (forward ? -1 : 1)}, after{action.stage.value + (forward ? 1 : -1)};
    const auto elsewhere = [&](StageId stage) {
      return exists(stage) && owner({{}, stage, action.microbatch}) != rank;
    };
    if (elsewhere(before)) {
      const Action receive{forward ? ActionKind::recv_forward : ActionKind::recv_backward, action.stage,
                           action.microbatch};
      const int at = find(receive);
      if (at < 0 || at > position) fault(rank, position, "needs {} before it", to_string(receive));
    }
    if (elsewhere(after)) {
      const Action send{forward ? ActionKind::send_forward : ActionKind::send_backward, action.stage,
                        action.microbatch};
      if (find(send) < position) fault(rank, position, "needs {} after it", to_string(send));
    }
  }

  void check_message(std::size_t rank, int position, const Action& action) {
    const Action other = counterpart(action);
    if (!exists(other.stage)) return fault(rank, position, "there is no stage {}", other.stage.value);
    if (owner(other) == rank) {
      return fault(rank, position, "stage {} is on this rank, too; no message is needed", other.stage.value);
    }
    if (find(other) < 0) {
      fault(rank, position, "rank {} lacks its counterpart {}", owner(other), to_string(other));
    }
  }

  // One STEP a stage and rank, after its reductions, which come after its last weight gradient.
  void check_endings() {
    int tied = 0;
    for (std::int32_t s = 0; s < schedule_.stages; ++s) {
      for (const RankId id : placement_->ranks(StageId{s})) {
        if (faults_.size() < max_faults) check_ending(StageId{s}, static_cast<std::size_t>(id.value), tied);
      }
    }
    if (faults_.empty() && tied == 1) {
      faults_.push_back({-1, -1, "REDUCE_TIED needs both the first and the last stage; only one has it"});
    }
  }

  void check_ending(StageId stage, std::size_t rank, int& tied) {
    int last_gradient = -1;
    for (std::int32_t m = 0; m < schedule_.microbatches; ++m) {
      if (owner({{}, stage, MicrobatchId{m}}) != rank) continue;
      last_gradient = std::max({last_gradient, find(ActionKind::backward, stage, MicrobatchId{m}),
                                find(ActionKind::backward_weight, stage, MicrobatchId{m})});
    }
    const int step = find_ending(rank, ActionKind::optimizer_step, stage);
    const int sum = find_ending(rank, ActionKind::reduce_grad, stage);
    const int sum_tied = find_ending(rank, ActionKind::reduce_tied, stage);
    if (step < 0) {
      faults_.push_back({static_cast<int>(rank), -1, fmt::format("rank {}: {}STEP is missing", rank, stage.value)});
      return;
    }
    if (placement_->is_shared(stage) && sum < 0) {
      faults_.push_back({static_cast<int>(rank), -1,
                         fmt::format("rank {}: stage {} is on another rank, too: {}REDUCE_GRAD is missing", rank,
                                     stage.value, stage.value)});
      return;
    }
    for (const int reduction : {sum_tied, sum}) {
      if (reduction >= 0 && reduction < last_gradient) {
        fault(rank, reduction, "stage {} still makes weight gradients after it", stage.value);
      }
    }
    if (step < std::max({last_gradient, sum, sum_tied})) {
      fault(rank, step, "stage {} still makes or sums gradients after it", stage.value);
    }
    if (sum >= 0 && sum < sum_tied) fault(rank, sum, "the shared table is not summed before it");
    tied += sum_tied >= 0 ? 1 : 0;
    if (sum_tied >= 0 && stage.value != 0 && stage.value + 1 != schedule_.stages) {
      fault(rank, sum_tied, "only the first and the last stage share a table");
    }
  }

  // The sends of an ordered pair of ranks, in order, are its receives.
  void check_pairing() {
    std::map<std::pair<std::size_t, std::size_t>, std::vector<Action>> sent;  // by source, target
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (const Action& action : schedule_.ranks[rank]) {
        if (is_send(action.kind)) sent[{rank, owner(counterpart(action))}].push_back(action);
      }
    }
    std::map<std::pair<std::size_t, std::size_t>, std::size_t> received;
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (std::size_t i = 0; i < schedule_.ranks[rank].size() && faults_.size() < max_faults; ++i) {
        const Action& action = schedule_.ranks[rank][i];
        if (!is_receive(action.kind)) continue;
        const std::size_t source = owner(counterpart(action));
        const Action& next = sent[{source, rank}][received[{source, rank}]++];
        if (next != counterpart(action)) {
          return fault(rank, static_cast<int>(i), "rank {} sends {} to this rank first; messages pair by order", source,
                       to_string(next));
        }
      }
    }
  }

  // A dry run with bounded channels. Sweeps over the ranks until nobody gets further.
  void check_deadlock() {
    position_.assign(schedule_.ranks.size(), 0);
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
        while (position_[rank] < schedule_.ranks[rank].size() && try_action(rank)) moved = true;
      }
    }
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) {
      if (position_[rank] < schedule_.ranks[rank].size()) report_waiting(rank);
    }
  }

  bool try_action(std::size_t rank) {
    const Action& action = schedule_.ranks[rank][position_[rank]];
    if (is_send(action.kind)) {
      const std::size_t target = owner(counterpart(action));
      int& unreceived = unreceived_[{rank, target}];
      if (buffers_ > 0) {
        if (unreceived == buffers_) return false;
        ++unreceived;
      } else {
        const auto& others = schedule_.ranks[target];
        if (position_[target] == others.size() || others[position_[target]] != counterpart(action)) return false;
        ++position_[target];
      }
    } else if (is_receive(action.kind)) {
      if (buffers_ == 0) return false;  // its sender moves both
      const std::size_t source = owner(counterpart(action));
      if (position_[source] <= static_cast<std::size_t>(find(counterpart(action)))) return false;
      --unreceived_[{source, rank}];
    } else if (action.kind == ActionKind::optimizer_step && !sums_reached(action.stage, rank)) {
      return false;
    }
    ++position_[rank];
    return true;
  }

  // Whether the others have come to the reductions that this stage takes part in.
  bool sums_reached(StageId stage, std::size_t rank) const {
    if (find_ending(rank, ActionKind::reduce_tied, stage) >= 0) {
      const StageId other{stage.value == 0 ? schedule_.stages - 1 : 0};
      const auto partner = static_cast<std::size_t>(placement_->ranks(other).front().value);
      if (!passed(partner, ActionKind::reduce_tied, other)) return false;
    }
    if (!placement_->is_shared(stage)) return true;
    const auto& ranks = placement_->ranks(stage);
    return std::all_of(ranks.begin(), ranks.end(), [&](RankId other) {
      return passed(static_cast<std::size_t>(other.value), ActionKind::reduce_grad, stage);
    });
  }
  bool passed(std::size_t rank, ActionKind kind, StageId stage) const {
    return static_cast<int>(position_[rank]) > find_ending(rank, kind, stage);
  }

  void report_waiting(std::size_t rank) {
    const auto at = static_cast<int>(position_[rank]);
    const Action& action = schedule_.ranks[rank][position_[rank]];
    if (!is_send(action.kind) && !is_receive(action.kind)) {
      return fault(rank, at, "waits for ever for a reduction at the other end");
    }
    const Action other = counterpart(action);
    const std::size_t partner = owner(other);
    const bool ended = position_[partner] == schedule_.ranks[partner].size();
    fault(rank, at, "waits for ever: {} {}, which rank {} has at position {}, but that {}",
          is_send(action.kind) && buffers_ > 0 ? fmt::format("{} messages are unreceived; needs", buffers_) : "needs",
          to_string(other), partner, find(other),
          ended ? "has ended"
                : fmt::format("waits at position {}, {}", position_[partner],
                              to_string(schedule_.ranks[partner][position_[partner]])));
  }

  static constexpr std::size_t kinds_with_microbatch = 8;
  static_assert(has_microbatch(static_cast<ActionKind>(kinds_with_microbatch - 1)) &&
                !has_microbatch(static_cast<ActionKind>(kinds_with_microbatch)));

  const LoweredSchedule& schedule_;
  int buffers_;
  Pairing pairing_;
  bool forward_only_ = false;
  std::optional<Placement> placement_;
  std::vector<int> positions_;                                           // [stage][micro-batch][kind], -1: none
  std::map<std::tuple<std::size_t, ActionKind, StageId>, int> endings_;  // the last of each
  std::vector<std::size_t> position_;                                    // by rank, in the dry run
  std::map<std::pair<std::size_t, std::size_t>, int> unreceived_;        // by source, target
  std::vector<ScheduleFault> faults_;
};

}  // namespace

std::vector<ScheduleFault> check(const LoweredSchedule& schedule, int buffers, Pairing pairing) {
  return LoweredCheck(schedule, buffers, pairing).run();
}

}  // namespace stagecraft
