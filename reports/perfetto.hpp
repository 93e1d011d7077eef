// Traces as a JSON file for ui.perfetto.dev and chrome://tracing (the "Trace Event Format").
//
// A process is one replica of one trace ("measured (cpu), replica 0"), or one of its shards, a thread one rank;
// messages in flight and reductions overlap the rank's work and so have threads of their own below it. Times are
// microseconds with a nanosecond's resolution; steps follow each other. Arrows lead from each SEND to its RECV.
#pragma once

#include <span>
#include <string>

#include "models/plan.hpp"
#include "models/trace.hpp"

namespace stagecraft {

// Counters: with a plan, each rank's memory in bytes as its stage costs say; without one, its micro-batches in flight.
std::string to_perfetto(std::span<const Trace> traces, const Plan* plan = nullptr);

}  // namespace stagecraft
