// Inputs of the kernels under test.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/random.hpp"

namespace stagecraft::kernels::cpu {

using Floats = std::vector<float>;

// Uniform in [-2, 2), other values for another `tensor`.
inline Floats random_floats(std::int64_t count, std::uint64_t tensor) {
  Floats values(static_cast<std::size_t>(count));
  fill_uniform(values.data(), count, {.seed = 1, .tensor = tensor}, 0, -2.0F, 2.0F);
  return values;
}

}  // namespace stagecraft::kernels::cpu
