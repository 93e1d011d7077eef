// The classic pipeline diagram: a row a rank, a box an action, time to the right. A stand-alone SVG picture.
//
// Boxes are coloured by kind and carry the micro-batch's number where it fits; idle time shows as the row's ground.
// The colours follow the reader's light or dark preference. Texts are escaped.
#pragma once

#include <cstddef>
#include <string>

#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "models/trace.hpp"

namespace stagecraft {

struct SvgOptions {
  double width = 1200;           // of the picture, in pixels
  std::string title;             // empty: source, network and schedule
  int step = -1;                 // which traced step; -1: the one nearest the median
  std::size_t max_boxes = 6000;  // of more, ranks are thinned out, then the latest left out; the picture says so
};

// One step of the trace. Throws bad_input when the trace has no such step. REQUIRES: at least one event.
std::string to_svg(const Trace& trace, const SvgOptions& options = {});

// The schedule with F, I and W of one unit each, B of two, and free messages.
// REQUIRES: a schedule that passed check().
std::string to_svg(const ComputeSchedule& schedule, const SvgOptions& options = {});

// The clock's execution as a trace, its unit of time a second. Pictures of it count units.
// REQUIRES: `clock` of this schedule.
Trace clock_trace(const ComputeSchedule& schedule, const ClockedSchedule& clock);

}  // namespace stagecraft
