// What schedules without a closed form take and keep: made for a shape, and played on their clock with the times of
// equal stages (models/schedule/clock.hpp). Remembers what it has played; for several threads.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "models/cost/schedule_forms.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

class ScheduleTimes {
 public:
  // As the functions of schedule_forms.hpp for the other schedules. zb-v-auto is made for these times; searched is the
  // named schedule that its search begins with, so that it may take less. REQUIRES of both: is_timed(schedule) and a
  // shape that refuse_schedule() accepts.
  double bubble(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank, std::int32_t microbatches,
                const StageWork& stage);
  double stages_in_flight(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                          std::int32_t microbatches, std::int32_t rank);

 private:
  using Shape = std::tuple<PipelineSchedule, std::int32_t, std::int32_t, std::int32_t>;
  const ComputeSchedule& made(const Shape& shape);

  std::mutex mutex_;
  std::map<Shape, ComputeSchedule> schedules_;  // the last ones
  std::int64_t actions_ = 0;                    // of these
  std::map<Shape, std::vector<int>> in_flight_;
  std::map<std::tuple<Shape, double, double>, double> bubbles_;  // by f and i, of f + i + w = 1
};

}  // namespace stagecraft
