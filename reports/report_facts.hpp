// What a report says, before it is HTML or Markdown.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reports/comparison.hpp"
#include "reports/report.hpp"
#include "reports/tables.hpp"

namespace stagecraft {

// Time of one kind of action in one step of one replica, summed over its ranks.
struct KindTotal {
  std::string name;                             // "forward", "send in flight", "idle and other"
  std::string css;                              // class of the kind's colour
  bool overlaps = false;                        // beside the ranks' work, not part of it
  std::vector<std::optional<double>> by_trace;  // seconds, in the order of ReportFacts::traces
};

struct MemoryFact {
  int rank = 0;
  std::optional<double> predicted, measured, available;  // bytes
  double used() const { return measured.value_or(predicted.value_or(0)); }
  // What orders ranks: of the device's memory where that is known, for all of them.
  double fullness() const { return used() / available.value_or(1); }
};

// Short figures for the top of the page.
struct Headline {
  std::string label, value, note;
};

struct ReportFacts {
  std::string title;
  std::vector<std::pair<std::string, std::string>> context;
  std::vector<Headline> headlines;
  Comparison comparison;             // condensed; without a measurement, what each rung says
  std::vector<const Trace*> traces;  // predicted, then measured
  std::vector<std::string> names;    // of them: "timeline", "cpu (measured)"
  std::vector<KindTotal> totals;
  std::vector<MemoryFact> memory;  // by rank
  std::vector<double> losses;
};

// Views into `input`. Throws bad_input naming a trace without events or step times. REQUIRES: at least one trace.
ReportFacts report_facts(const ReportInput& input);

// "12.3 ms", or "-".
std::string time_or_dash(const std::optional<double>& seconds);
// "+1.20 ms (+4.1 %)", or "-" when one is missing.
std::string difference_text(const std::optional<double>& from, const std::optional<double>& to);

}  // namespace stagecraft
