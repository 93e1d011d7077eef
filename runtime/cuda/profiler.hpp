// Measures what single layers cost on a GPU or on a slice of one, with the layers that train() runs, and the copies
// between devices.
//
// A short network (short_network.hpp) runs as stages of one rank, every action from its captured graph as in a run. A
// slice is measured while none, one, ... all of its neighbours on the GPU compute: they share its memory and power.
#pragma once

#include "runtime/profiler.hpp"

namespace stagecraft::cuda {

struct ProfileConditions {
  std::string cluster = "local-gpu";  // local_gpu.hpp; all its devices must be alike
  DataType precision = DataType::bf16;
  bool busy_neighbours = true;  // else slices are measured with idle ones alone
  std::filesystem::path algorithm_cache;
};

// Throws bad_input for a network or sequence that cannot be run, device as check_runnable.
Profile profile(const Network& network, const ProfileOptions& options, const ProfileConditions& conditions,
                const ProfileProgress& progress = {});

}  // namespace stagecraft::cuda
