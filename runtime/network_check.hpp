// Which networks the CPU backend can run.
#pragma once

#include "models/network/network.hpp"

namespace stagecraft {

// Throws bad_input for a hand-written graph (no description to run) and for mixture of experts.
void check_trainable(const Network& network);

}  // namespace stagecraft
