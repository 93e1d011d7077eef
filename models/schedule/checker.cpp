#include "models/schedule/checker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "models/text.hpp"

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
  std::size_t cell(StageId stage, MicrobatchId microbatch) const {
    return static_cast<std::size_t>(stage.value) * microbatches_ + static_cast<std::size_t>(microbatch.value);
  }
  std::uint8_t& ran(StageId stage, MicrobatchId microbatch) { return ran_[cell(stage, microbatch)]; }
  // -1 where the forward is missing.
  int rank_of(StageId stage, MicrobatchId microbatch) const { return owner_[cell(stage, microbatch)]; }
  std::uint8_t whole_backward() const { return schedule_.forward_only ? 0 : ran_backward; }

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
      return fault(fmt::format("needs at least one rank, stage and micro-batch; has {}, {}, {}",
                               counted(std::ssize(schedule_.ranks), "rank"), counted(schedule_.stages, "stage"),
                               counted(schedule_.microbatches, "micro-batch")));
    }
    const bool inference = schedule_.forward_only;
    const double needed = (inference ? 1.0 : 2.0) * schedule_.stages * schedule_.microbatches;
    if (static_cast<double>(actions) < needed) {
      return fault(fmt::format("{} and {} need a forward{} each, at least {} actions; has {}",
                               counted(schedule_.stages, "stage"), counted(schedule_.microbatches, "micro-batch"),
                               inference ? "" : " and a backward", needed, actions));
    }
    if (schedule_.slices < 1 || schedule_.microbatches % schedule_.slices != 0) {
      fault(fmt::format("{} of micro-batches do not make micro-batches of {}", counted(schedule_.microbatches, "slice"),
                        counted(schedule_.slices, "slice")));
    }
  }

  // Each rank by itself: ranges, few ranks a stage, the order within a stage and micro-batch, nothing missing.
  void check_structure() {
    owner_.assign(stages_ * microbatches_, -1);
    ran_.assign(stages_ * microbatches_, 0);
    ranks_of_stage_.assign(stages_, {-1, -1});
    for (std::size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      next_loss_ = 0;
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
    check_rank(rank, position, action);
    check_order_within(rank, position, action);
    if (action.overlapped) check_overlap(rank, position);
    ran(action.stage, action.microbatch) |= bit(action.kind);
  }

  // A stage may be on two ranks, a micro-batch of it on one.
  void check_rank(std::size_t rank, std::size_t position, const Action& action) {
    const int id = static_cast<int>(rank);
    auto& [first, second] = ranks_of_stage_[static_cast<std::size_t>(action.stage.value)];
    if (first < 0) {
      first = id;
    } else if (first != id && second < 0) {
      second = id;
    } else if (first != id && second != id) {
      return fault(rank, position, "stage {} already runs on ranks {} and {}; a stage has at most two",
                   action.stage.value, first, second);
    }
    int& owner = owner_[cell(action.stage, action.microbatch)];
    if (owner < 0) owner = id;
    if (owner != id) {
      fault(rank, position, "micro-batch {} of stage {} already runs on rank {}", action.microbatch.value,
            action.stage.value, owner);
    }
  }

  void check_overlap(std::size_t rank, std::size_t position) {
    const auto& actions = schedule_.ranks[rank];
    if (actions[position].kind != ActionKind::forward || position + 1 == actions.size() ||
        actions[position + 1].kind != ActionKind::backward) {
      fault(rank, position, "only an F can overlap, and only with a B right behind it");
    }
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
    if (action.kind != ActionKind::forward && schedule_.forward_only) {
      return fault(rank, position, "inference has forwards only");
    }
    check_slice(rank, position, action);
    if (action.kind == ActionKind::forward && action.stage.value == schedule_.stages - 1) {
      const int last = next_loss_ - 1;
      next_loss_ = action.microbatch.value + 1;
      if (action.microbatch.value < last) {
        return fault(rank, position, "the last stage makes the losses in micro-batch order, but {}F{} ran before",
                     action.stage.value, last);
      }
    }
  }

  // Forwards of the slices in order, for their keys and values; backwards in reverse, for the gradients of those.
  void check_slice(std::size_t rank, std::size_t position, const Action& action) {
    if (schedule_.slices == 1) return;
    const int slice = action.microbatch.value % schedule_.slices;
    if (action.kind == ActionKind::forward && slice > 0) {
      const MicrobatchId before{action.microbatch.value - 1};
      if ((ran(action.stage, before) & ran_forward) == 0) {
        fault(rank, position, "attends to the slice before it: needs {} first",
              to_string(Action{ActionKind::forward, action.stage, before}));
      }
    }
    const bool backward = action.kind == ActionKind::backward || action.kind == ActionKind::backward_input;
    if (backward && slice + 1 < schedule_.slices) {
      const MicrobatchId after{action.microbatch.value + 1};
      if ((ran(action.stage, after) & (ran_backward | ran_input)) == 0) {
        fault(rank, position, "the slice behind it attends to it: needs {} first",
              to_string(Action{ActionKind::backward, action.stage, after}));
      }
    }
  }

  void check_missing() {
    for (std::int32_t s = 0; s < schedule_.stages; ++s) {
      const int first = ranks_of_stage_[static_cast<std::size_t>(s)].first;
      if (first < 0) return fault(fmt::format("no rank runs stage {}", s));
      for (std::int32_t m = 0; m < schedule_.microbatches; ++m) {
        const std::uint8_t did = ran(StageId{s}, MicrobatchId{m});
        if (did == (ran_forward | whole_backward()) || did == (ran_forward | ran_input | ran_weight)) continue;
        const char* missing = (did & ran_forward) == 0 ? "F" : (did & ran_input) == 0 ? "B" : "W";
        const int rank = std::max(rank_of(StageId{s}, MicrobatchId{m}), first);
        faults_.push_back({rank, -1, fmt::format("rank {}: {}{}{} is missing", rank, s, missing, m)});
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
    const StageId neighbour{done.stage.value + (done.kind == ActionKind::forward ? 1 : -1)};
    if (neighbour.value < 0 || neighbour.value >= schedule_.stages) return;
    if (rank_of(neighbour, done.microbatch) == rank) return;
    const auto other = static_cast<std::size_t>(rank_of(neighbour, done.microbatch));
    const auto& actions = schedule_.ranks[other];
    if (position[other] < actions.size() && actions[position[other]].stage == neighbour &&
        actions[position[other]].microbatch == done.microbatch && may_run(actions[position[other]])) {
      ready.push_back(other);
    }
  }

  void report_waiting(std::size_t rank, const std::vector<std::size_t>& position) {
    const std::size_t at = position[rank];
    const Action& action = schedule_.ranks[rank][at];
    Action needed = needed_by(action);
    const auto owner = static_cast<std::size_t>(rank_of(needed.stage, needed.microbatch));
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
  std::vector<int> owner_;                           // [stage][micro-batch], the rank
  std::vector<std::uint8_t> ran_;                    // [stage][micro-batch], bits of Ran
  std::vector<std::pair<int, int>> ranks_of_stage_;  // -1: none
  int next_loss_ = 0;                                // behind the last loss of this rank
  std::vector<ScheduleFault> faults_;
};

}  // namespace

std::vector<ScheduleFault> check(const ComputeSchedule& schedule) { return ComputeCheck(schedule).run(); }

namespace {

// +1 when an activation is kept from here on, -1 when it is given back.
int change_in_flight(const ComputeSchedule& schedule, ActionKind kind, KeptUntil until) {
  if (kind == ActionKind::forward) return schedule.forward_only ? 0 : 1;
  if (kind == ActionKind::backward) return -1;
  return kind == (until == KeptUntil::input_gradient ? ActionKind::backward_input : ActionKind::backward_weight) ? -1
                                                                                                                 : 0;
}

}  // namespace

std::vector<int> peak_in_flight_by_stage(const ComputeSchedule& schedule, KeptUntil until) {
  std::vector<int> peak(static_cast<std::size_t>(schedule.stages));
  std::vector<int> now(peak);
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) now[static_cast<std::size_t>(action.stage.value)] = 0;
    for (const Action& action : actions) {
      const auto stage = static_cast<std::size_t>(action.stage.value);
      peak[stage] = std::max(peak[stage], now[stage] += change_in_flight(schedule, action.kind, until));
    }
  }
  return peak;
}

std::vector<int> peak_split_by_stage(const ComputeSchedule& schedule) {
  std::vector<int> peak(static_cast<std::size_t>(schedule.stages));
  for (const auto& actions : schedule.ranks) {
    std::vector<int> now(peak.size());
    for (const Action& action : actions) {
      const auto stage = static_cast<std::size_t>(action.stage.value);
      if (action.kind == ActionKind::backward_input) peak[stage] = std::max(peak[stage], ++now[stage]);
      if (action.kind == ActionKind::backward_weight) --now[stage];
    }
  }
  return peak;
}

std::vector<int> peak_in_flight_by_rank(const ComputeSchedule& schedule, KeptUntil until) {
  std::vector<int> peaks;
  for (const auto& actions : schedule.ranks) {
    int now = 0, peak = 0;
    for (const Action& action : actions) peak = std::max(peak, now += change_in_flight(schedule, action.kind, until));
    peaks.push_back(peak);
  }
  return peaks;
}

std::vector<ScheduleFault> check_in_flight(const ComputeSchedule& schedule, int limit, KeptUntil until) {
  std::vector<ScheduleFault> faults;
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    int now = 0;
    for (std::size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Action& action = schedule.ranks[rank][i];
      now += change_in_flight(schedule, action.kind, until);
      if (now <= limit) continue;
      faults.push_back({static_cast<int>(rank), static_cast<int>(i),
                        fmt::format("rank {}, position {}: {}: keeps {} activations, the limit is {}", rank, i,
                                    to_string(action), now, limit)});
      break;
    }
  }
  return faults;
}

}  // namespace stagecraft
