// Which networks and layouts the runtime can run.
#pragma once

#include <string_view>

#include "models/network/network.hpp"
#include "models/plan.hpp"

namespace stagecraft {

// Throws bad_input for a hand-written graph (no description to run), for latent attention and for mixture of experts.
void check_trainable(const Network& network);

// Throws device_error for a layout of a rank's work that the runtime does not execute, and bad_input where the network
// cannot be shared among its tensor-parallel shards. `rest`: the plan's without what is the backend's ("CPU", "CUDA").
void check_layout(const Plan& plan, PlanLayout rest, std::string_view backend);

}  // namespace stagecraft
