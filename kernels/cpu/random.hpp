// Initial values of parameters from a counter-based generator (splitmix64, Steele et al. 2014, as a hash).
//
// Element i of a tensor depends only on (seed, tensor, i): any partition of a network over ranks, in any order, starts
// from the same parameters.
#pragma once

#include <cstdint>

#include "kernels/types.hpp"

namespace stagecraft::kernels::cpu {

using kernels::RandomStream;

// x[i] = element first + i of the stream's normal distribution.
void fill_normal(float* x,  // (count)
                 std::int64_t count, RandomStream stream, std::int64_t first, float mean, float deviation);

// As above, uniform in [low, high).
void fill_uniform(float* x,  // (count)
                  std::int64_t count, RandomStream stream, std::int64_t first, float low, float high);

}  // namespace stagecraft::kernels::cpu
