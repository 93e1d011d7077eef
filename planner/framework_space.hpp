// What of the space of partitions a framework runs.
#pragma once

#include <optional>

#include "models/cost/constants.hpp"
#include "planner/planner.hpp"

namespace stagecraft {

// Leaves schedules, recomputation, pipelines and tensor widths that the framework has; `tensor`: the width of groups,
// as given, which becomes 1 where it splits no layers. Throws bad_input naming the option that asks for anything else.
void leave_possible(SearchSpace& space, std::optional<int>& tensor, const Abilities& can);

// Whether it has ZeRO 1 beside all other parallelism.
bool shards_anywhere(const Abilities& can);

}  // namespace stagecraft
