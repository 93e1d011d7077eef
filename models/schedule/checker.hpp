// Proves that a schedule can be executed, or says which rank and action cannot.
#pragma once

#include <string>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// The first fault of a schedule. `rank` and `position` are -1 where the fault is not at one action.
struct ScheduleFault {
  int rank = -1;
  int position = -1;
  std::string message;  // "rank 1 waits at 2B0: needs 3B0, which rank 0 runs only after 1F0"
};

// Structure and order: each stage on one rank; per stage and micro-batch one F and either one B or one I and one W, in
// that order, no duplicates; losses in micro-batch order on the last stage; no deadlock across ranks. Empty: no fault.
std::vector<ScheduleFault> check(const ComputeSchedule& schedule);

// As above, for explicit communication: every SEND has its RECV on the right rank; per ordered pair of ranks the order
// of the sends is that of the receives (transports pair by order); no deadlock when a send waits while `buffers`
// messages of that ordered pair are unreceived. buffers = 0 is a rendezvous (both sides must be there).
std::vector<ScheduleFault> check(const LoweredSchedule& schedule, int buffers);

// Rows are ranks, columns positions; the faulty cell is marked. Wide schedules are cut around the fault.
std::string format_grid(const ComputeSchedule& schedule, const std::vector<ScheduleFault>& faults = {});

// By stage: the most micro-batches whose forward ran and whose B (or W) has not.
std::vector<int> peak_in_flight_by_stage(const ComputeSchedule& schedule);

}  // namespace stagecraft
