// Sums over workers, over any transport. The order of the additions depends only on the members and sizes, so the
// result is the same bits on every member, every time and on every transport.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/transport.hpp"

namespace stagecraft {

// Pieces in which data travels: what a cache holds, and what `scratch` below must hold.
inline constexpr std::int64_t collective_piece_floats = 1 << 15;

// Ring all-reduce (Patarasu and Yuan 2009): data becomes the sum over the members' data. Each member sends and
// receives 2 (n-1)/n of it. All members call it with as many floats.
// REQUIRES: members holds this worker once; scratch has collective_piece_floats.
void ring_all_reduce(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data,
                     std::span<float> scratch);

// data becomes first's data + second's data, on both. REQUIRES: this worker is one of the two; scratch as above.
void pair_sum(Transport& transport, int first, int second, const MessageTag& tag, std::span<float> data,
              std::span<float> scratch);

// The sum of a number over the members, added in their order.
double sum(Transport& transport, std::span<const int> members, const MessageTag& tag, double value);

}  // namespace stagecraft
