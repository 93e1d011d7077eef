// What a rank of a plan will hold, known before any memory is taken.
#pragma once

#include <cstdint>
#include <vector>

#include "models/plan.hpp"
#include "runtime/cpu/stage_layout.hpp"

namespace stagecraft {

// The stage as a shard of its rank builds it. REQUIRES: a runnable plan.
StageSpec stage_spec(const Plan& plan, std::size_t stage, int shard = 0);

// How many micro-batches (or slices) of a stage a rank's actions have open at once.
struct InFlight {
  int slabs = 0;   // from the arrival of the input to the weight gradient; to the forward in inference
  int splits = 0;  // from the input gradient to the weight gradient, where they are separate
  int caches = 0;  // micro-batches with a slice between its forward and its input gradient
};
InFlight count_in_flight(const ComputeSchedule& schedule, const std::vector<Action>& actions,
                         const Placement& placement, RankId rank, StageId stage);

// Bytes by purpose.
struct MemoryNeed {
  std::int64_t weights = 0, gradients = 0, optimizer_state = 0;
  std::int64_t versions = 0;     // older weights that asynchronous schedules keep
  std::int64_t activations = 0;  // of all micro-batches in flight
  std::int64_t workspace = 0;    // scratch, constants, reduction buffers
  std::int64_t messages = 0;     // one each way and stage; more while they wait for the receiver
  std::int64_t total() const {
    return weights + gradients + optimizer_state + versions + activations + workspace + messages;
  }
};
// Of the first shard of the rank, which holds the most.
MemoryNeed memory_need(const Plan& plan, const LoweredSchedule& schedule, int rank);
// What `run` will take on each rank's device, by rank: the sum of that, or the arena of a GPU. Empty where the network
// or the layout is one that the runtime does not run.
std::vector<Bytes> needed_memory(const Plan& plan);

}  // namespace stagecraft
