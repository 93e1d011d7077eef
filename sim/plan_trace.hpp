// What both simulators share: from the spans of a plan's actions to a trace of one step.
#pragma once

#include <span>
#include <vector>

#include "models/plan.hpp"
#include "models/trace.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {

// A trace of `source` with everything but events and step time: context, and the peak memory of every rank from the
// order of its actions: a stash is kept from F to B (or W), a split from I to W, beside weights, gradients, optimizer
// state and the largest workspace of the rank's stages.
Trace trace_header(const Plan& plan, std::string source);

// Appends the events of one replica. `spans` are of the schedule's actions, in the order of ranks, then positions.
// Receives that did not wait are left out.
void append_events(const Plan& plan, const LoweredSchedule& schedule, int replica,
                   std::span<const Timeline::Span> spans, Trace& trace);

// Appends for one replica what an earlier one did. REQUIRES: the trace has that one's events.
void append_copy(int earlier, int replica, Trace& trace);

}  // namespace stagecraft
