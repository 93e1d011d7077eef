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

// Structure and order: per stage and micro-batch one F and either one B or one I and one W (F alone in inference), in
// that order and on one rank, no duplicates; each stage on at most two ranks; losses in micro-batch order where the
// last stage is; token slices forwards in order and backwards in reverse; an overlapped F with a B behind it; no
// deadlock across ranks. Empty: no fault.
std::vector<ScheduleFault> check(const ComputeSchedule& schedule);

// How messages find their receives.
enum class Pairing {
  by_order,  // of an ordered pair of ranks, as NCCL and torch do
  by_tag,    // by stage, micro-batch and direction, as our channels and MPI do
};

// As above, for explicit communication: every SEND has its RECV on the right rank; pairing by order, the sends of an
// ordered pair of ranks are in the order of the receives; no deadlock when a send waits while `buffers` messages of
// that ordered pair are unreceived. buffers = 0 is a rendezvous (both sides must be there).
std::vector<ScheduleFault> check(const LoweredSchedule& schedule, int buffers, Pairing pairing = Pairing::by_order);

// Rows are ranks, columns positions; the faulty cell is marked. Wide schedules are cut around the fault.
std::string format_grid(const ComputeSchedule& schedule, const std::vector<ScheduleFault>& faults = {});

// Until when an activation counts as kept.
enum class KeptUntil { input_gradient, weight_gradient };

// By stage: the most micro-batches whose forward ran on one rank and whose B, or I or W, has not.
std::vector<int> peak_in_flight_by_stage(const ComputeSchedule& schedule, KeptUntil until = KeptUntil::weight_gradient);
// By rank: the same over all its stages together, counted in activations of one stage.
std::vector<int> peak_in_flight_by_rank(const ComputeSchedule& schedule, KeptUntil until = KeptUntil::weight_gradient);
// The most micro-batches at once between their input and their weight gradient, by stage; zero where these are one.
std::vector<int> peak_split_by_stage(const ComputeSchedule& schedule);

// A fault at the first action of each rank that keeps more than `limit` activations (of one stage and micro-batch).
std::vector<ScheduleFault> check_in_flight(const ComputeSchedule& schedule, int limit,
                                           KeptUntil until = KeptUntil::weight_gradient);

}  // namespace stagecraft
