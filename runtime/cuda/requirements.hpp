// Which plans the CUDA backend can run here.
#pragma once

#include <string>

#include "models/plan.hpp"

namespace stagecraft::cuda {

// Throws bad_input for what the backend does not do (with what does), device when the plan's GPUs are not here or have
// too little memory. REQUIRES: a validated plan of a trainable network.
void check_runnable(const Plan& plan);

// "2 x NVIDIA H200": the GPUs of this machine.
std::string machine_name();

}  // namespace stagecraft::cuda
