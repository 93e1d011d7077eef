// Cores that this process may use.
#pragma once

#include <vector>

namespace stagecraft {

// The affinity mask of the calling thread, ascending.
std::vector<int> available_cores();

// Binds the calling thread. Without effect where the system refuses.
void pin_to_core(int core);

// How often the calling thread lost its core to other work since it started.
long involuntary_switches();

}  // namespace stagecraft
