// Where a stage's tensors are in its slabs.
#include <algorithm>
#include <iterator>

#include "runtime/cuda/layout.hpp"

namespace stagecraft::cuda {

const ParameterEntry* token_table_of(const StageLayout& layout) {
  const auto found = std::find_if(layout.entries.begin(), layout.entries.end(),
                                  [](const ParameterEntry& e) { return e.parameter.name == token_table; });
  return found == layout.entries.end() ? nullptr : &*found;
}

KeptElements kept_elements(const StageLayout& layout, const ParameterEntry& entry, int replica) {
  const auto after = std::upper_bound(layout.buckets.begin(), layout.buckets.end(), entry.offset,
                                      [](std::int64_t offset, const Bucket& b) { return offset < b.offset; });
  const Bucket& bucket = *std::prev(after);
  // Of the share, relative to the tensor.
  const std::int64_t first = bucket.offset + (bucket.is_sharded() ? replica * bucket.share : 0) - entry.offset;
  KeptElements kept;
  kept.first = std::clamp<std::int64_t>(first, 0, entry.elements);
  kept.last = std::clamp<std::int64_t>(first + bucket.share, 0, entry.elements);
  kept.state = bucket.state_offset + kept.first - first;
  return kept;
}

}  // namespace stagecraft::cuda
