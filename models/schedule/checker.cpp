#include "models/schedule/checker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace stagecraft {
namespace {

constexpr std::size_t max_faults = 20;

// What is known of one stage and micro-batch while a rank's list is read.
enum Ran : std::uint8_t { ran_forward = 1, ran_backward = 2, ran_input = 4, ran_weight = 8 };

std::uint8_t bit(ActionKind kind) { return static_cast<std::uint8_t>(1U << static_cast<unsigned>(kind)); }
static_assert(static_cast<int>(ActionKind::backward_weight) == 3, "bit() relies on the order of ActionKind");

class ComputeCheck {
 public:
  explicit ComputeCheck(const ComputeSchedule& schedule)
      : schedule_(schedule),
        stages_(static_cast<std::size_t>(schedule.stages)),
        microbatches_(static_cast<std::size_t>(schedule.microbatches)) {}

  std::vector<ScheduleFault> run() {
    check_shape();
    if (faults_.empty()) check_structure();
    if (faults_.empty()) check_order_across_ranks();
    return std::move(faults_);
  }

 private:
  std::uint8_t& ran(StageId stage, MicrobatchId microbatch) {
    return ran_[static_cast<std::size_t>(stage.value) * microbatches_ + static_cast<std::size_t>(microbatch.value)];
  }
  int rank_of(int stage) const { return owner_[static_cast<std::size_t>(stage)]; }

  template <class... Args>
  void fault(std::size_t rank, std::size_t position, fmt::format_string<Args...> format, Args&&... args) {
    faults_.push_back(
        {static_cast<int>(rank), static_cast<int>(position),
         fmt::format("rank {}, position {}: {}: {}", rank, position, to_string(schedule_.ranks[rank][position]),
                     fmt::format(format, std::forward<Args>(args)...))});
  }
  void fault(std::string message) { faults_.push_back({-1, -1, std::move(message)}); }

  // Before any memory is taken: a schedule that says "10^9 stages" has to bring the actions for them.
  void check_shape() {
    std::size_t actions = 0;
    for (const auto& rank : schedule_.ranks) actions += rank.size();
    if (schedule_.ranks.empty() || schedule_.stages < 1 || schedule_.microbatches < 1) {
      return fault(
          fmt::format("needs at least one rank, stage and micro-batch; has {} ranks, {} stages, {} micro-batches",
                      schedule_.ranks.size(), schedule_.stages, schedule_.microbatches));
    }
    const double needed = 2.0 * schedule_.stages * schedule_.microbatches;
    if (static_cast<double>(actions) < needed) {
      fault(
          fmt::format("{} stages and {} micro-batches need a forward and a backward each, at least {} actions; has {}",
                      schedule_.stages, schedule_.microbatches, needed, actions));
    }
  }

  // Each rank by itself: ranges, one rank a stage, the order within a stage and micro-batch, nothing missing.
  void check_structure() {
    owner_.assign(stages_, -1);
    ran_.assign(stages_ * microbatches_, 0);
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (std::size_t position = 0; position < schedule_.ranks[rank].size(); ++position) {
        check_action(rank, position);
        if (faults_.size() >= max_faults) return;
      }
    }
    if (faults_.empty()) check_missing();
  }

  void check_action(std::size_t rank, std::size_t position) {
    const Action& action = schedule_.ranks[rank][position];
    if (!is_compute(action.kind)) return fault(rank, position, "only F, B, I and W belong in a compute schedule");
    if (action.stage.value < 0 || action.stage.value >= schedule_.stages) {
      return fault(rank, position, "no such stage; stages are 0 to {}", schedule_.stages - 1);
    }
    if (action.microbatch.value < 0 || action.microbatch.value >= schedule_.microbatches) {
      return fault(rank, position, "no such micro-batch; micro-batches are 0 to {}", schedule_.microbatches - 1);
    }
    int& owner = owner_[static_cast<std::size_t>(action.stage.value)];
    if (owner < 0) owner = static_cast<int>(rank);
    if (owner != static_cast<int>(rank)) {
      return fault(rank, position, "stage {} already runs on rank {}; a stage has one rank", action.stage.value, owner);
    }
    check_order_within(rank, position, action);
    ran(action.stage, action.microbatch) |= bit(action.kind);
  }

  void check_order_within(std::size_t rank, std::size_t position, const Action& action) {
    const std::uint8_t before = ran(action.stage, action.microbatch);
    const auto name = [&](ActionKind kind) { return to_string(Action{kind, action.stage, action.microbatch}); };
    if ((before & bit(action.kind)) != 0) return fault(rank, position, "appears a second time");
    if (action.kind != ActionKind::forward && (before & ran_forward) == 0) {
      return fault(rank, position, "needs {} before it", name(ActionKind::forward));
    }
    if (action.kind == ActionKind::backward && (before & (ran_input | ran_weight)) != 0) {
      return fault(rank, position, "B is the whole backward, but I or W of this micro-batch already ran");
    }
    if (action.kind >= ActionKind::backward_input && (before & ran_backward) != 0) {
      return fault(rank, position, "{} already did the whole backward", name(ActionKind::backward));
    }
    if (action.kind == ActionKind::backward_weight && (before & ran_input) == 0) {
      return fault(rank, position, "needs {} before it", name(ActionKind::backward_input));
    }
    if (action.kind == ActionKind::forward && action.stage.value == schedule_.stages - 1) {
      if (action.microbatch.value != next_loss_) {
        return fault(rank, position, "the last stage makes the losses in micro-batch order; {}F{} is next",
                     action.stage.value, next_loss_);
      }
      ++next_loss_;
    }
  }

  void check_missing() {
    for (std::int32_t s = 0; s < schedule_.stages; ++s) {
      if (rank_of(s) < 0) return fault(fmt::format("no rank runs stage {}", s));
      for (std::int32_t m = 0; m < schedule_.microbatches; ++m) {
        const std::uint8_t did = ran(StageId{s}, MicrobatchId{m});
        if (did == (ran_forward | ran_backward) || did == (ran_forward | ran_input | ran_weight)) continue;
        const char* missing = (did & ran_forward) == 0 ? "F" : (did & ran_input) == 0 ? "B" : "W";
        faults_.push_back({rank_of(s), -1, fmt::format("rank {}: {}{}{} is missing", rank_of(s), s, missing, m)});
        if (faults_.size() >= max_faults) return;
      }
    }
  }

  // The action of another stage that must have run before this one may.
  Action needed_by(const Action& action) const {
    const bool forward = action.kind == ActionKind::forward;
    return {forward ? ActionKind::forward : ActionKind::backward, StageId{action.stage.value + (forward ? -1 : 1)},
            action.microbatch};
  }
  bool may_run(const Action& action) {
    if (action.kind == ActionKind::backward_weight) return true;
    const Action needed = needed_by(action);
    if (needed.stage.value < 0 || needed.stage.value >= schedule_.stages) return true;
    const int wanted = needed.kind == ActionKind::forward ? ran_forward : ran_backward | ran_input;
    return (ran(needed.stage, needed.microbatch) & wanted) != 0;
  }

  // A dry run: every rank as far as it gets, until nobody gets further. Waking only the ranks of the neighbouring
  // stages keeps it linear.
  void check_order_across_ranks() {
    std::fill(ran_.begin(), ran_.end(), std::uint8_t{0});
    std::vector<std::size_t> position(schedule_.ranks.size(), 0);
    std::vector<std::size_t> ready;
    for (std::size_t rank = schedule_.ranks.size(); rank > 0; --rank) ready.push_back(rank - 1);
    while (!ready.empty()) {
      const std::size_t rank = ready.back();
      ready.pop_back();
      const auto& actions = schedule_.ranks[rank];
      for (std::size_t& at = position[rank]; at < actions.size() && may_run(actions[at]); ++at) {
        const Action& action = actions[at];
        ran(action.stage, action.microbatch) |= bit(action.kind);
        wake(action, static_cast<int>(rank), position, ready);
      }
    }
    for (std::size_t rank = 0; rank < schedule_.ranks.size() && faults_.size() < max_faults; ++rank) {
      if (position[rank] < schedule_.ranks[rank].size()) report_waiting(rank, position);
    }
  }

  void wake(const Action& done, int rank, const std::vector<std::size_t>& position, std::vector<std::size_t>& ready) {
    if (done.kind == ActionKind::backward_weight) return;
    const int neighbour = done.stage.value + (done.kind == ActionKind::forward ? 1 : -1);
    if (neighbour < 0 || neighbour >= schedule_.stages || rank_of(neighbour) == rank) return;
    const auto other = static_cast<std::size_t>(rank_of(neighbour));
    const auto& actions = schedule_.ranks[other];
    if (position[other] < actions.size() && actions[position[other]].stage.value == neighbour &&
        actions[position[other]].microbatch == done.microbatch && may_run(actions[position[other]])) {
      ready.push_back(other);
    }
  }

  void report_waiting(std::size_t rank, const std::vector<std::size_t>& position) {
    const std::size_t at = position[rank];
    const Action& action = schedule_.ranks[rank][at];
    Action needed = needed_by(action);
    const auto owner = static_cast<std::size_t>(rank_of(needed.stage.value));
    const auto& others = schedule_.ranks[owner];
    const auto found = std::find_if(others.begin(), others.end(), [&](const Action& other) {
      const bool wanted = needed.kind == ActionKind::forward
                              ? other.kind == ActionKind::forward
                              : other.kind == ActionKind::backward || other.kind == ActionKind::backward_input;
      return wanted && other.stage == needed.stage && other.microbatch == needed.microbatch;
    });
    needed = *found;
    const std::string stuck = to_string(others[position[owner]]);
    faults_.push_back(
        {static_cast<int>(rank), static_cast<int>(at),
         fmt::format("rank {} waits for ever at position {}, {}: needs {}, which rank {} runs at position "
                     "{}, but that waits at position {}, {}",
                     rank, at, to_string(action), to_string(needed), owner, found - others.begin(), position[owner],
                     stuck)});
  }

  const ComputeSchedule& schedule_;
  std::size_t stages_, microbatches_;
  std::vector<int> owner_;         // rank by stage
  std::vector<std::uint8_t> ran_;  // [stage][micro-batch], bits of Ran
  int next_loss_ = 0;
  std::vector<ScheduleFault> faults_;
};

}  // namespace

std::vector<ScheduleFault> check(const ComputeSchedule& schedule) { return ComputeCheck(schedule).run(); }

std::vector<int> peak_in_flight_by_stage(const ComputeSchedule& schedule) {
  std::vector<int> now(static_cast<std::size_t>(schedule.stages)), peak(now);
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) {
      const auto stage = static_cast<std::size_t>(action.stage.value);
      if (action.kind == ActionKind::forward) peak[stage] = std::max(peak[stage], ++now[stage]);
      if (action.kind == ActionKind::backward || action.kind == ActionKind::backward_weight) --now[stage];
    }
  }
  return peak;
}

}  // namespace stagecraft
