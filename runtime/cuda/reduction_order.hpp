// Which sums over ranks a rank takes part in, bucket by bucket, and in which order it starts them: known from the plan,
// so that a test can show of any plan that all members of a group agree and nobody waits in a circle.
//
// Over NCCL a stage's buckets start during its last weight gradient of the step, those of its last layers first,
// while the rest of the backward runs. All replicas of a rank have one list of actions, so their
// orders are equal. What also involves other ranks comes after that, in one order for all: tables of tied stages, and
// stages that are on two ranks.
#pragma once

#include <vector>

#include "runtime/cuda/layout.hpp"

namespace stagecraft::cuda {

// In the order in which the worker starts them. `nccl`: whether this build has it. Sums over workers that each have a
// whole GPU to themselves go over it; slices of one GPU cannot be members of one communicator.
std::vector<Reduction> reduction_order(const Plan& plan, const LoweredSchedule& schedule, const RankLayout& layout,
                                       int worker, bool nccl);

}  // namespace stagecraft::cuda
