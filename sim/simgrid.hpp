// The step time of a plan on a simulated cluster with shared links, in SimGrid.
//
// Same action lists, same costs as the timeline; messages and reductions are flows that share the ports of devices,
// NICs and leaves fairly. Without contention the two agree to 1e-9; with it SimGrid is the truth.
#pragma once

#include <span>
#include <vector>

#include "models/plan.hpp"
#include "models/trace.hpp"

namespace stagecraft {

struct SimGridOptions {
  // Simulate one replica with 1/replicas of each shared port when all replicas are placed alike: exact, and far
  // cheaper.
  bool fold_replicas = true;
};

// The times of the steps alone, without traces: several plans at once, one a core. Throws as simulate_simgrid, for the
// first plan that it would throw for.
std::vector<Seconds> simgrid_steps(std::span<const Plan* const> plans, const SimGridOptions& options = {});
Seconds simgrid_step(const Plan& plan, const SimGridOptions& options = {});

// Throws bad_input for a plan whose schedule cannot finish. SimGrid runs in a copy of this process, which forks; the
// same plan gives the same bits however many were simulated before or beside it.
Trace simulate_simgrid(const Plan& plan, const SimGridOptions& options = {});

}  // namespace stagecraft
