// Measures what single layers and single links cost on this machine, with the modules that train() runs.
//
// Conditions are those of a running pipeline: every core runs the same layer at the same time, pinned, and inputs and
// weights cycle over several copies so that caches hold what they would hold in a step. Never a whole pipeline.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/network/network.hpp"
#include "models/profile.hpp"
#include "models/units.hpp"

namespace stagecraft {

class MpiSession;

struct ProfileOptions {
  std::vector<std::int64_t> microbatches = {1, 2, 4, 8};
  std::int64_t sequence = 128;
  std::vector<Recompute> recompute = {Recompute::none, Recompute::selective, Recompute::full};
  Optimizer optimizer = Optimizer::adamw;
  int cores = 0;                            // measured together; 0: all of the affinity mask
  Seconds time_budget{30};                  // for all measurements together; each is made once at least
  const std::atomic<bool>* stop = nullptr;  // set: throws device "interrupted"
  MpiSession* mpi = nullptr;                // also measure the link between processes 0 and 1
};

// `done` of `total` measurements; `what` is the next one ("block, micro-batch 4, recompute full").
using ProfileProgress = std::function<void(int done, int total, const std::string& what)>;

// Throws bad_input for a network that cannot be run (see check_runnable) or a sequence it does not accept.
// Under MPI every process calls this; process 0 measures the layers and returns them, the others return no layers.
Profile profile_cpu(const Network& network, const ProfileOptions& options, const ProfileProgress& progress = {});

}  // namespace stagecraft
