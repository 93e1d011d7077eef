// ParallelLayout::recomputed_layers where ranks recompute unlike numbers of blocks, and its JSON.
#pragma once

#include <cstdint>

#include "models/json_reader.hpp"

namespace stagecraft {

// On each rank as many blocks as it takes to fit into its memory, which with 1f1b are most on the first
// (StepModel::recomputed_of). In text "fewest".
inline constexpr std::int32_t fewest_layers = -1;
// As many as a list by rank says (TrainingJob::recomputed_blocks, PlanLayout::recomputed_by_rank). In text "listed".
inline constexpr std::int32_t listed_layers = -2;

// A number of blocks, or one of these words.
std::int32_t recomputed_layers_from_json(const JsonValue& value);
Json recomputed_layers_json(std::int32_t layers);

}  // namespace stagecraft
