// Which plans the CUDA backend can run here.
#pragma once

#include <string>

#include "models/plan.hpp"

namespace stagecraft::cuda {

// Throws bad_input for what the backend does not do (with what does), device when the plan's GPUs are not here or have
// too little memory. `process`: of several, one a worker; -1: all workers are threads of this process.
// REQUIRES: a validated plan of a trainable network.
void check_runnable(const Plan& plan, int process = -1, bool deterministic = false);

// What the plan's ranks do, as check_runnable has proven it to end. Between processes messages pair by their order.
LoweredSchedule lowered(const Plan& plan, bool processes);

// "2 x NVIDIA H200": the GPUs of this machine.
std::string machine_name();

}  // namespace stagecraft::cuda
