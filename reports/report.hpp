// The report of a plan and its traces, for people: one HTML file or one Markdown file with the same content.
//
// The HTML is self-contained: it opens offline, loads nothing, and shows everything without JavaScript; a small script
// adds zoom, pan and hover. Every text from a file is escaped. Large traces are cut to `max_boxes` and the report says
// what was cut.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "models/plan.hpp"
#include "models/trace.hpp"

namespace stagecraft {

// Views: must outlive the call only. At least one trace must be there, predicted or measured.
struct ReportInput {
  std::string title;                 // empty: made from network, schedule and machine
  const Plan* plan = nullptr;        // adds the stage table, device memory and the closed form
  std::span<const Trace> predicted;  // rising in truth: timeline, then SimGrid
  const Trace* measured = nullptr;   // adds the comparison and the losses
  std::size_t max_boxes = 6000;      // drawn a trace
};

// REQUIRES: at least one trace; traces that summarize() accepts.
std::string html_report(const ReportInput& input);
std::string markdown_report(const ReportInput& input);

}  // namespace stagecraft
