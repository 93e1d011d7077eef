#include "models/schedule/clock.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

namespace stagecraft {
namespace {

constexpr double not_yet = -1;

class Clock {
 public:
  Clock(const ComputeSchedule& schedule, std::span<const StageTimes> times, double message)
      : schedule_(schedule),
        times_(times),
        message_(message),
        placement_(schedule),
        microbatches_(static_cast<std::size_t>(schedule.microbatches)),
        forward_end_(static_cast<std::size_t>(schedule.stages) * microbatches_, not_yet),
        backward_end_(forward_end_) {
    assert(times.empty() || times.size() == static_cast<std::size_t>(schedule.stages));
  }

  ClockedSchedule run() {
    const std::size_t ranks = schedule_.ranks.size();
    result_.spans.resize(ranks);
    free_.assign(ranks, 0);
    std::vector<std::size_t> ready;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      result_.spans[rank].reserve(schedule_.ranks[rank].size());
      ready.push_back(ranks - 1 - rank);
    }
    while (!ready.empty()) {
      const std::size_t rank = ready.back();
      ready.pop_back();
      for (std::size_t done = result_.spans[rank].size(); advance(rank);) {
        for (; done < result_.spans[rank].size(); ++done) {
          const int woken = wakes(schedule_.ranks[rank][done], rank);
          if (woken >= 0) ready.push_back(static_cast<std::size_t>(woken));
        }
      }
    }
    summarize();
    return std::move(result_);
  }

 private:
  std::size_t cell(StageId stage, MicrobatchId microbatch) const {
    return static_cast<std::size_t>(stage.value) * microbatches_ + static_cast<std::size_t>(microbatch.value);
  }
  double duration(const Action& action) const {
    const StageTimes time = times_.empty() ? StageTimes{} : times_[static_cast<std::size_t>(action.stage.value)];
    switch (action.kind) {
      case ActionKind::forward:
        return time.forward;
      case ActionKind::backward:
        return time.backward_input + time.backward_weight;
      case ActionKind::backward_input:
        return time.backward_input;
      default:
        return time.backward_weight;
    }
  }

  // When what the action needs from another stage is there; not_yet if that has not run.
  double arrival(const Action& action, std::size_t rank) const {
    if (action.kind == ActionKind::backward_weight) return 0;
    const bool forward = action.kind == ActionKind::forward;
    const StageId from{action.stage.value + (forward ? -1 : 1)};
    if (from.value < 0 || from.value >= schedule_.stages) return 0;
    const double made = (forward ? forward_end_ : backward_end_)[cell(from, action.microbatch)];
    if (made == not_yet) return not_yet;
    const bool crosses = placement_.rank(from, action.microbatch).value != static_cast<std::int32_t>(rank);
    return made + (crosses ? message_ : 0);
  }

  // Runs the rank's next action, or the next two when they overlap. False when it has to wait, or is through.
  bool advance(std::size_t rank) {
    const auto& actions = schedule_.ranks[rank];
    auto& spans = result_.spans[rank];
    if (spans.size() == actions.size()) return false;
    const Action& action = actions[spans.size()];
    const double arrived = arrival(action, rank);
    if (arrived == not_yet) return false;
    double start = std::max(arrived, free_[rank]);
    if (!action.overlapped) {
      spans.push_back({start, start + duration(action)});
    } else {
      const Action& behind = actions[spans.size() + 1];
      const double other = arrival(behind, rank);
      if (other == not_yet) return false;
      start = std::max(start, other);
      const double middle = start + duration(action);
      spans.push_back({start, middle});
      spans.push_back({middle, middle + duration(behind)});
      finish(behind, spans.back().end);
    }
    free_[rank] = spans.back().end;
    finish(action, spans.back().end);
    return true;
  }

  void finish(const Action& action, double end) {
    if (action.kind == ActionKind::backward_weight) return;
    (action.kind == ActionKind::forward ? forward_end_ : backward_end_)[cell(action.stage, action.microbatch)] = end;
  }

  // The other rank that may go on after this, or -1.
  int wakes(const Action& done, std::size_t rank) const {
    if (done.kind == ActionKind::backward_weight) return -1;
    const StageId to{done.stage.value + (done.kind == ActionKind::forward ? 1 : -1)};
    if (to.value < 0 || to.value >= schedule_.stages) return -1;
    const int other = placement_.rank(to, done.microbatch).value;
    return other == static_cast<int>(rank) ? -1 : other;
  }

  void summarize() {
    double first = std::numeric_limits<double>::infinity(), last = 0;
    for (std::size_t rank = 0; rank < result_.spans.size(); ++rank) {
      const auto& spans = result_.spans[rank];
      assert(spans.size() == schedule_.ranks[rank].size() && "REQUIRES: a schedule that passed check()");
      if (spans.empty()) continue;
      double work = 0;
      for (const Action& action : schedule_.ranks[rank]) work += duration(action);
      result_.work += work;
      result_.busiest = std::max(result_.busiest, work);
      result_.longest_span = std::max(result_.longest_span, spans.back().end - spans.front().start);
      first = std::min(first, spans.front().start);
      last = std::max(last, spans.back().end);
    }
    result_.makespan = last - first;
  }

  const ComputeSchedule& schedule_;
  std::span<const StageTimes> times_;
  double message_;
  Placement placement_;
  std::size_t microbatches_;
  std::vector<double> forward_end_, backward_end_;  // [stage][micro-batch]
  std::vector<double> free_;                        // by rank
  ClockedSchedule result_;
};

}  // namespace

ClockedSchedule clock_schedule(const ComputeSchedule& schedule, std::span<const StageTimes> times, double message) {
  return Clock(schedule, times, message).run();
}

}  // namespace stagecraft
