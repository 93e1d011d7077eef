// What runs the same order elsewhere: Megatron-LM's arguments and DeepSpeed's instructions. torch: torch_csv.hpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Arguments of Megatron-LM's pretrain scripts, one word each, for micro-batches of one sample and one pipeline (with R
// replicas and micro-batches of b samples, --global-batch-size is M R b). Empty for schedules that it does not have.
// REQUIRES: make_schedule(name, shape) does not throw.
std::vector<std::string> megatron_arguments(std::string_view name, const ScheduleShape& shape);

// What the instructions of DeepSpeed's TrainSchedule ("1f1b") and InferenceSchedule ("inference" with one stage a rank)
// are on each rank, in order: "ForwardPass(buffer_id=0)". Empty for schedules that it does not have.
// REQUIRES: make_schedule(name, shape) does not throw.
std::vector<std::vector<std::string>> deepspeed_instructions(std::string_view name, const ScheduleShape& shape);

}  // namespace stagecraft
