#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "models/schedule/checker.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_faults = 20;

bool is_send(ActionKind kind) { return kind == ActionKind::send_forward || kind == ActionKind::send_backward; }
bool is_receive(ActionKind kind) { return kind == ActionKind::recv_forward || kind == ActionKind::recv_backward; }

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
  for (const auto& actions : schedule.ranks) {
    auto& rank = computes.ranks.emplace_back();
    std::copy_if(actions.begin(), actions.end(), std::back_inserter(rank),
                 [](const Action& action) { return is_compute(action.kind); });
  }
  return computes;
}

// Positions of an action in a rank's list that others refer to.
using Positions = std::map<Action, int>;

class LoweredCheck {
 public:
  LoweredCheck(const LoweredSchedule& schedule, int buffers)
      : schedule_(schedule), buffers_(buffers), positions_(schedule.ranks.size()) {}

  std::vector<ScheduleFault> run() {
    const ComputeSchedule computes = without_communication(schedule_);
    faults_ = check(computes);
    // Positions there count computations only.
    for (ScheduleFault& fault : faults_) fault.position = -1;
    if (!faults_.empty()) return std::move(faults_);
    owners_ = placement(computes);
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) index_rank(rank);
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) check_rank(rank);
    if (faults_.empty()) check_endings();
    if (faults_.empty()) check_pairing();
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
  std::size_t owner(StageId stage) const {
    return static_cast<std::size_t>(owners_[static_cast<std::size_t>(stage.value)].value);
  }
  bool exists(StageId stage) const { return stage.value >= 0 && stage.value < schedule_.stages; }
  // Position of an action on its rank, or -1.
  int find(std::size_t rank, const Action& action) const {
    const auto found = positions_[rank].find(action);
    return found == positions_[rank].end() ? -1 : found->second;
  }
  int find_backward(std::size_t rank, StageId stage, MicrobatchId microbatch) const {
    return std::max(find(rank, {ActionKind::backward, stage, microbatch}),
                    find(rank, {ActionKind::backward_input, stage, microbatch}));
  }

  void index_rank(std::size_t rank) {
    const auto& actions = schedule_.ranks[rank];
    for (std::size_t i = 0; i < actions.size() && faults_.size() < max_faults; ++i) {
      const Action& action = actions[i];
      const auto position = static_cast<int>(i);
      if (!exists(action.stage) || owner(action.stage) != rank) {
        fault(rank, position, "stage {} is not on this rank", action.stage.value);
      } else if (!positions_[rank].try_emplace(action, position).second && action.kind != ActionKind::unshard &&
                 action.kind != ActionKind::reshard) {
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
    if (exists(before) && owner(before) != rank) {
      const Action receive{forward ? ActionKind::recv_forward : ActionKind::recv_backward, action.stage,
                           action.microbatch};
      const int at = find(rank, receive);
      if (at < 0 || at > position) fault(rank, position, "needs {} before it", to_string(receive));
    }
    if (exists(after) && owner(after) != rank) {
      const Action send{forward ? ActionKind::send_forward : ActionKind::send_backward, action.stage,
                        action.microbatch};
      if (find(rank, send) < position) fault(rank, position, "needs {} after it", to_string(send));
    }
  }

  void check_message(std::size_t rank, int position, const Action& action) {
    const Action other = counterpart(action);
    if (!exists(other.stage)) return fault(rank, position, "there is no stage {}", other.stage.value);
    if (owner(other.stage) == rank) {
      return fault(rank, position, "stage {} is on this rank, too; no message is needed", other.stage.value);
    }
    if (action.microbatch.value < 0 || action.microbatch.value >= schedule_.microbatches) {
      return fault(rank, position, "no such micro-batch");
    }
    if (find(owner(other.stage), other) < 0) {
      fault(rank, position, "rank {} lacks its counterpart {}", owner(other.stage), to_string(other));
    }
  }

  // One STEP a stage, after its reductions, which come after its last weight gradient.
  void check_endings() {
    int tied = 0;
    for (std::int32_t s = 0; s < schedule_.stages && faults_.size() < max_faults; ++s) {
      const StageId stage{s};
      const std::size_t rank = owner(stage);
      const auto at = [&](ActionKind kind) { return find(rank, {kind, stage, MicrobatchId{-1}}); };
      int last_gradient = -1;
      for (std::int32_t m = 0; m < schedule_.microbatches; ++m) {
        last_gradient = std::max({last_gradient, find(rank, {ActionKind::backward, stage, MicrobatchId{m}}),
                                  find(rank, {ActionKind::backward_weight, stage, MicrobatchId{m}})});
      }
      const int step = at(ActionKind::optimizer_step);
      const int sum = at(ActionKind::reduce_grad), sum_tied = at(ActionKind::reduce_tied);
      if (step < 0) {
        faults_.push_back({static_cast<int>(rank), -1, fmt::format("rank {}: {}STEP is missing", rank, s)});
        continue;
      }
      for (const int reduction : {sum_tied, sum}) {
        if (reduction >= 0 && reduction < last_gradient) {
          fault(rank, reduction, "stage {} still makes weight gradients after it", s);
        }
      }
      if (step < std::max({last_gradient, sum, sum_tied})) {
        fault(rank, step, "stage {} still makes or sums gradients after it", s);
      }
      if (sum >= 0 && sum < sum_tied) fault(rank, sum, "the shared table is not summed before it");
      tied += sum_tied >= 0 ? 1 : 0;
      if (sum_tied >= 0 && s != 0 && s + 1 != schedule_.stages) {
        fault(rank, sum_tied, "only the first and the last stage share a table");
      }
    }
    if (faults_.empty() && tied == 1) {
      faults_.push_back({-1, -1, "REDUCE_TIED needs both the first and the last stage; only one has it"});
    }
  }

  // Transports pair messages of two ranks by order.
  void check_pairing() {
    std::map<std::pair<std::size_t, std::size_t>, std::vector<Action>> sent;  // by source, target
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (const Action& action : schedule_.ranks[rank]) {
        if (is_send(action.kind)) sent[{rank, owner(counterpart(action).stage)}].push_back(action);
      }
    }
    std::map<std::pair<std::size_t, std::size_t>, std::size_t> received;
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (std::size_t i = 0; i < schedule_.ranks[rank].size() && faults_.size() < max_faults; ++i) {
        const Action& action = schedule_.ranks[rank][i];
        if (!is_receive(action.kind)) continue;
        const std::size_t source = owner(counterpart(action).stage);
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
      const std::size_t target = owner(counterpart(action).stage);
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
      int& unreceived = unreceived_[{owner(counterpart(action).stage), rank}];
      if (unreceived == 0) return false;
      --unreceived;
    } else if (action.kind == ActionKind::optimizer_step && !tied_reached(action.stage, rank)) {
      return false;
    }
    ++position_[rank];
    return true;
  }

  // Whether the other end of a shared table has come to its REDUCE_TIED.
  bool tied_reached(StageId stage, std::size_t rank) const {
    if (find(rank, {ActionKind::reduce_tied, stage, MicrobatchId{-1}}) < 0) return true;
    const StageId other{stage.value == 0 ? schedule_.stages - 1 : 0};
    const int at = find(owner(other), {ActionKind::reduce_tied, other, MicrobatchId{-1}});
    return position_[owner(other)] > static_cast<std::size_t>(at);
  }

  void report_waiting(std::size_t rank) {
    const auto at = static_cast<int>(position_[rank]);
    const Action& action = schedule_.ranks[rank][position_[rank]];
    if (!is_send(action.kind) && !is_receive(action.kind)) {
      return fault(rank, at, "waits for ever for REDUCE_TIED at the other end");
    }
    const Action other = counterpart(action);
    const std::size_t partner = owner(other.stage);
    const bool ended = position_[partner] == schedule_.ranks[partner].size();
    fault(rank, at, "waits for ever: {} {}, which rank {} has at position {}, but that {}",
          is_send(action.kind) && buffers_ > 0 ? fmt::format("{} messages are unreceived; needs", buffers_) : "needs",
          to_string(other), partner, find(partner, other),
          ended ? "has ended"
                : fmt::format("waits at position {}, {}", position_[partner],
                              to_string(schedule_.ranks[partner][position_[partner]])));
  }

  const LoweredSchedule& schedule_;
  int buffers_;
  std::vector<Positions> positions_;
  std::vector<RankId> owners_;                                     // by stage
  std::vector<std::size_t> position_;                              // by rank, in the dry run
  std::map<std::pair<std::size_t, std::size_t>, int> unreceived_;  // by source, target
  std::vector<ScheduleFault> faults_;
};

}  // namespace

std::vector<ScheduleFault> check(const LoweredSchedule& schedule, int buffers) {
  return LoweredCheck(schedule, buffers).run();
}

}  // namespace stagecraft
