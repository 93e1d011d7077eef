// Every schedule on the same ranks, stages, micro-batches and times: which is fastest, what each keeps and sends.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "models/json_reader.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

struct ScheduleFigures {
  std::string name;
  int stages_per_rank = 1;
  double makespan = 0;     // in the unit of the times
  double idle_share = 0;   // of ranks * makespan
  double span_bubble = 0;  // the zero-bubble papers' rate over the longest span of a rank
  double peak_stash = 0;   // activations that the fullest rank keeps until their W, each of one stage and micro-batch;
                           // where each schedule has its own stages: of a rank's share of the network
  std::int64_t messages = 0;  // between ranks, a step
  int weight_copies = 1;      // ranks that hold a stage's weights: 2 in bidirectional schedules
  bool trains_alike = true;   // one step with the gradients of all micro-batches; not: stale weights, forwards alone
  bool fits = true;           // within the memory limit, if there is one
};

struct ScheduleComparison {
  std::vector<ScheduleFigures> ranked;                       // those that fit and train alike first, then by makespan
  double lower_bound = 0;                                    // lower_bound.hpp, of searched's stages on their ranks
  bool own_stages = false;                                   // each schedule has its own number of stages a rank
  std::vector<std::pair<std::string, std::string>> refused;  // name and reason
};

// Told what is being looked at, for a line of progress.
using ComparisonProgress = std::function<void(std::string_view)>;

// Of all schedule_kinds(), with `times` on every stage; shape.times and shape.message are set from them. Searched may
// put stages on two ranks, as others in the table do.
ScheduleComparison compare_schedules(ScheduleShape shape, const StageTimes& times, double message,
                                     const ComparisonProgress& progress = {});
// The same network on the same ranks: each schedule in the fewest stages a rank that it takes, `times` those of a
// rank's whole share; seq-1f1b in two slices. Searched takes whichever of these ways of cutting serves it best.
// shape.stages_per_rank is ignored.
ScheduleComparison compare_schedules_of_one_network(ScheduleShape shape, const StageTimes& times, double message,
                                                    const ComparisonProgress& progress = {});
// The fewest stages a rank, up to 8, that the kind takes with a well-divisible number of micro-batches; 1 if none.
int fewest_stages_per_rank(const ScheduleKind& kind, ScheduleShape shape);

// A table and the refusals; at most 100 columns.
std::string to_text(const ScheduleComparison& comparison);
// {"schedules": [{"name", "makespan", ...}], "refused": [{"name", "reason"}]}
Json to_json(const ScheduleComparison& comparison);

}  // namespace stagecraft
