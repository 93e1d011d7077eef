// How Timeline::weights_ is laid out: a zero, then one entry a stage of each block. For timeline*.cpp alone.
#pragma once

#include <cstdint>

namespace stagecraft {

// Those of compute are in the order of ActionKind.
enum class Block : std::uint32_t { forward, backward, backward_input, backward_weight, hop, tied, grad, step, count };
constexpr std::uint32_t no_weight = 0;

constexpr std::uint32_t weight_index(Block block, std::uint32_t stages, int stage) {
  return 1 + static_cast<std::uint32_t>(block) * stages + static_cast<std::uint32_t>(stage);
}

}  // namespace stagecraft
