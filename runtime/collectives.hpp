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

// The two halves of it, over parts of `data`: the members' shares in their order, nearly equal ([size * i / n, size *
// (i + 1) / n)). Scatter: the member's part becomes the sum over the members of that part, the others mean nothing
// afterwards. Gather: every part becomes its member's. Each member sends and receives (n-1)/n of the data.
void ring_reduce_scatter(Transport& transport, std::span<const int> members, const MessageTag& tag,
                         std::span<float> data, std::span<float> scratch);
void ring_all_gather(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data);
// The part of `data` of member `index` of `members`.
std::span<float> ring_part(std::span<float> data, std::size_t index, std::size_t members);

// data becomes first's data + second's data, on both. REQUIRES: this worker is one of the two; scratch as above.
void pair_sum(Transport& transport, int first, int second, const MessageTag& tag, std::span<float> data,
              std::span<float> scratch);

// The sum of a number over the members, added in their order.
double sum(Transport& transport, std::span<const int> members, const MessageTag& tag, double value);

}  // namespace stagecraft
