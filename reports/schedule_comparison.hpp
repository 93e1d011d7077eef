// Every schedule on the same ranks, stages, micro-batches and times: which is fastest, what each keeps and sends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/json_reader.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct ScheduleFigures {
  std::string name;
  double makespan = 0;     // in the unit of the times
  double idle_share = 0;   // of ranks * makespan
  double span_bubble = 0;  // the zero-bubble papers' rate over the longest span of a rank
  double peak_stash = 0;   // activations that the fullest rank keeps until their W, each of one stage and micro-batch
  std::int64_t messages = 0;  // between ranks, a step
  bool trains_alike = true;   // one step with the gradients of all micro-batches; not: stale weights, forwards alone
};

struct ScheduleComparison {
  std::vector<ScheduleFigures> ranked;                       // those that train alike first, then by makespan
  std::vector<std::pair<std::string, std::string>> refused;  // name and reason
};

// Of all schedule_kinds(), with `times` on every stage; shape.times and shape.message are set from them.
ScheduleComparison compare_schedules(ScheduleShape shape, const StageTimes& times, double message);

// A table and the refusals; at most 100 columns.
std::string to_text(const ScheduleComparison& comparison);
// {"schedules": [{"name", "makespan", ...}], "refused": [{"name", "reason"}]}
Json to_json(const ScheduleComparison& comparison);

}  // namespace stagecraft
