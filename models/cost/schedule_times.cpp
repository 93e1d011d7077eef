#include "models/cost/schedule_times.hpp"

#include <algorithm>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t most_kept_actions = 2 * most_timed_actions;

}  // namespace

const ComputeSchedule& ScheduleTimes::made(const Shape& shape) {
  if (const auto found = schedules_.find(shape); found != schedules_.end()) return found->second;
  const auto& [schedule, ranks, stages_per_rank, microbatches] = shape;
  ComputeSchedule made = make_schedule(name(schedule), {ranks, stages_per_rank, microbatches});
  std::int64_t actions = 0;
  for (const auto& list : made.ranks) actions += std::ssize(list);
  if (actions_ + actions > most_kept_actions) {
    schedules_.clear();
    actions_ = 0;
  }
  actions_ += actions;
  return schedules_.emplace(shape, std::move(made)).first->second;
}

double ScheduleTimes::bubble(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                             std::int32_t microbatches, const StageWork& stage) {
  const double total = stage.total();
  if (ranks == 1 || total <= 0) return 0;
  const StageTimes times{stage.forward / total, stage.backward_input / total, stage.backward_weight / total};
  const Shape shape{schedule, ranks, stages_per_rank, microbatches};
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = bubbles_.try_emplace({shape, times.forward, times.backward_input}, 0);
  if (is_new) {
    const std::vector<StageTimes> all(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(stages_per_rank),
                                      times);
    double makespan = 0;
    if (schedule == PipelineSchedule::zb_v_auto) {
      ScheduleShape planned{ranks, stages_per_rank, microbatches};
      planned.times = all;
      makespan = clock_schedule(make_schedule(name(schedule), planned), all).makespan;
    } else {
      makespan = clock_schedule(made(shape), all).makespan;
    }
    entry->second = std::max(0.0, makespan - static_cast<double>(stages_per_rank) * microbatches);
  }
  return total * entry->second;
}

double ScheduleTimes::stages_in_flight(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                                       std::int32_t microbatches, std::int32_t rank) {
  const Shape shape{schedule, ranks, stages_per_rank, microbatches};
  const std::lock_guard lock(mutex_);
  auto& in_flight = in_flight_[shape];
  if (in_flight.empty()) in_flight = peak_in_flight_by_rank(made(shape));
  return in_flight[static_cast<std::size_t>(rank)];
}

}  // namespace stagecraft
