// Predicted against measured, rung by rung: how far each way of judging a plan is from what the hardware did.
//
// Rungs are the columns (closed form, timeline, SimGrid, measured), quantities the rows. Pure: traces in, values out.
// The closed form's column holds the plan's own costs, from which every prediction is composed.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/json_reader.hpp"
#include "models/plan.hpp"
#include "models/schedule/schedule.hpp"
#include "models/trace.hpp"

namespace stagecraft {

// What a row is about. Times are seconds, memory is bytes, both bubbles are shares of 1.
enum class Figure {
  step_time,    // median of the steps
  bubble,       // idle / total over the ranks, first forward to last backward
  span_bubble,  // the zero-bubble papers' rate over the longest per-rank span
  action,       // one kind of action of one stage: median duration
  peak_memory,  // of one pipeline rank, the largest of the replicas
};
// Whether it is a share of a time, not a time or an amount.
inline bool is_share(Figure figure) { return figure == Figure::bubble || figure == Figure::span_bubble; }

struct ComparisonRow {
  Figure figure = Figure::step_time;
  std::string name;                              // "step time", "stage 1 F", "peak memory, rank 0"
  StageId stage;                                 // of Figure::action
  ActionKind action = ActionKind::forward;       // of Figure::action
  RankId rank;                                   // of Figure::peak_memory
  std::vector<std::optional<double>> predicted;  // by rung; empty where the rung does not say
  std::optional<double> measured;                // seconds, bytes or share
  std::optional<double> measured_low;            // 10th and 90th percentile of times
  std::optional<double> measured_high;
  std::vector<std::optional<double>> error;  // by rung: (predicted - measured) / measured in percent; of
                                             // shares the plain difference in percentage points
};

// Over the rows with a relative error (times and memory), absolute values.
struct RungError {
  std::optional<double> step_pct;  // of the step time, with its sign
  std::optional<double> worst_pct;
  std::string worst_row;
  std::optional<double> median_pct;
};

struct Comparison {
  std::vector<std::string> rungs;  // of the predictions, rising in truth: "closed form", "timeline", "simgrid"
  std::vector<std::string> files;  // by rung; empty unless known and needed to tell two rungs of one engine apart
  std::string measured;            // source of the measured trace: "cpu"; empty without one
  std::string machine, date, network, schedule;
  int steps = 0;  // measured
  std::vector<ComparisonRow> rows;
  std::vector<RungError> errors;      // by rung
  std::vector<std::string> warnings;  // why the numbers may not be comparable or not be good

  // Whether the step time of the last rung (the one nearest the truth) is off by more than `percent`, either way.
  // True as well when no rung predicts a step time: a check that checks nothing must not pass.
  bool exceeds(double percent) const;
};

// Where the documents were read, to name them by; empty: unknown.
struct ComparisonFiles {
  std::string plan, plan_digest;
  std::vector<std::string> predicted;  // none, or by trace
  std::string measured;
};

// `plan` may be null: no closed form then. Throws bad_input naming a trace without events or step times.
Comparison compare(const Plan* plan, std::span<const Trace> predicted, const Trace& measured,
                   const ComparisonFiles& files = {});

// The same without a measurement: what each rung says, and no errors. Texts then have no column for them.
Comparison tabulate(const Plan* plan, std::span<const Trace> predicted, const ComparisonFiles& files = {});

// As people read it: with more than `limit` stages or ranks, one row a kind of action (medians over the stages) and
// one for the memory (largest of the ranks). Errors of the rungs stay those of all rows.
Comparison condensed(const Comparison& comparison, int limit = 12);

// Both condensed. Text is aligned and at most 100 columns; more rungs than fit go into a second table below the first.
std::string to_text(const Comparison& comparison);
std::string to_markdown(const Comparison& comparison);
// Keys carry units: {"step_time_s": {"timeline": 0.12, "measured": 0.13}, "step_time_error_pct": {...}, "stages": ...}.
Json to_json(const Comparison& comparison);

// Throws bad_input naming a trace without events or step times: it cannot be reported on.
void require_complete(const Trace& trace);

// "12.3 ms", "1.50 GiB", "25.0 %", or "-" for nothing; as the tables and the HTML report print them.
std::string format_value(Figure figure, const std::optional<double>& value);
// "+2.1 %", of shares "+2.1 pp", or "-".
std::string format_error(Figure figure, const std::optional<double>& error);

}  // namespace stagecraft
