// A schedule as text: a row a rank, time to the right. The pictures of docs/schedules.md are made by it.
//
//   rank 0 | F0 F1 .  .  B0 -- .  B1 --
//   rank 1 | .  F0 B0 -- F1 B1 -- .  .
//
// A cell is a unit of time: the shortest computation, or a whole fraction of it where that fits all times better. An
// action longer than a cell goes on as "--", idle time shows as ".". With one stage a rank, which is then the rank's
// number, actions go without it; else as in torch: "6B0" is stage 6's. "F1&" overlaps with the backward behind it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct ScheduleGridOptions {
  bool colour = false;        // ANSI colours, one a kind
  std::size_t columns = 100;  // of a line; later time is cut off. 0: no limit
  std::size_t rows = 24;      // ranks; more are left out
};

// Lines end in "\n"; the last one says what was left out, if anything was.
// REQUIRES: `clock` of this schedule.
std::string format_schedule_grid(const ComputeSchedule& schedule, const ClockedSchedule& clock,
                                 const ScheduleGridOptions& options = {});

}  // namespace stagecraft
