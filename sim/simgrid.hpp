// The step time of a plan on a simulated cluster with shared links, in SimGrid.
//
// Same action lists, same costs as the timeline; messages and reductions are flows that share the ports of devices,
// NICs and leaves fairly. Without contention the two agree to 1e-9; with it SimGrid is the truth.
#pragma once

#include "models/plan.hpp"
#include "models/trace.hpp"

namespace stagecraft {

struct SimGridOptions {
  // Simulate one replica with 1/replicas of each shared port when all replicas are placed alike: exact, and far
  // cheaper.
  bool fold_replicas = true;
};

// The time of the step alone, without a trace. Throws as simulate_simgrid.
Seconds simgrid_step(const Plan& plan, const SimGridOptions& options = {});

// Throws bad_input for a plan whose schedule cannot finish. One simulation at a time in a process (SimGrid's engine).
Trace simulate_simgrid(const Plan& plan, const SimGridOptions& options = {});

}  // namespace stagecraft
