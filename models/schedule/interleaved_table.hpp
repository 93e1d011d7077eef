// The order in which interleaved schedules take micro-batches and chunks: the same on every rank.
#pragma once

#include <algorithm>
#include <cstdint>

namespace stagecraft {

// Groups of `group` micro-batches (the last may be smaller); each group passes chunk 0, then chunk 1, ...:
//
//   V = 2 chunks, M = 5, group = 3:    k      0  1  2  3  4  5   6  7  8  9
//                             micro-batch     0  1  2  0  1  2   3  4  3  4
//                                   chunk     0  0  0  1  1  1   0  0  1  1
//
// Backwards take the same micro-batches with the chunks reversed. Megatron-LM calls it the schedule table.
// Counts are 64-bit: V * M may exceed 32 bits before a generator refuses it.
class InterleavedTable {
 public:
  struct Entry {
    int chunk;
    int microbatch;
  };
  // REQUIRES: all at least 1.
  InterleavedTable(int chunks, int microbatches, int group)
      : chunks_(chunks), microbatches_(microbatches), group_(group) {}

  std::int64_t size() const { return chunks_ * microbatches_; }
  // REQUIRES: 0 <= k < size().
  Entry forward(std::int64_t k) const {
    const std::int64_t first = k / (group_ * chunks_) * group_;
    const std::int64_t members = std::min(group_, microbatches_ - first), at = k - first * chunks_;
    return {static_cast<int>(at / members), static_cast<int>(first + at % members)};
  }
  Entry backward(std::int64_t k) const {
    const Entry entry = forward(k);
    return {static_cast<int>(chunks_) - 1 - entry.chunk, entry.microbatch};
  }

 private:
  std::int64_t chunks_, microbatches_, group_;
};

}  // namespace stagecraft
