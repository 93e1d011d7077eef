// The options that say which schedules, of which shape, on which times: shared by `show schedule` and
// `compare schedules`.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct ScheduleOptions {
  int ranks = 4;
  std::optional<int> stages_per_rank;
  int microbatches = 8;
  StageTimes times;
  double message = 0;
  double memory = 0;

  // With one stage a rank unless asked otherwise.
  ScheduleShape shape() const;
};

void add_schedule_options(CLI::App& command, ScheduleOptions& options);

}  // namespace stagecraft
