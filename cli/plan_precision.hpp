// In which precision `plan` plans where the user names none.
#pragma once

#include "cli/plan_options.hpp"
#include "models/profile.hpp"

namespace stagecraft {

// The options with a precision: the one that `profile` (null: none) was measured in, else bf16 where all devices of the
// cluster compute in it, else the first of fp16, tf32 and fp32 that they do. A note says so where it is not bf16.
// Throws bad_input where they have none in common. Precisions that were named stay as they are.
PlanOptions with_precision(PlanOptions options, const Cluster& cluster, const Profile* profile);

}  // namespace stagecraft
