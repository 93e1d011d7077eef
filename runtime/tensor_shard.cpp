#include "runtime/tensor_shard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace stagecraft {

ShardRange shard_range(std::int64_t size, const TensorShard& shard) {
  const std::int64_t share = (size + shard.count - 1) / shard.count;
  return {std::min(size, share * shard.index), std::min(size, share * (shard.index + 1))};
}

std::string tensor_parallel_fault(const Transformer& t, int count) {
  if (count == 1) return "";
  const auto indivisible = [&](std::string_view what, std::int64_t number) {
    return fmt::format("{}: expected a multiple of {} (tensor), got {}", what, count, number);
  };
  if (t.heads % count != 0) return indivisible("heads", t.heads);
  if (t.kv_heads % count != 0) return indivisible("kv_heads", t.kv_heads);
  if (t.ffn % count != 0) return indivisible("ffn", t.ffn);
  if (t.head == HeadKind::regression) return "head: a regression head has one output, which shards cannot share";
  if (shard_range(t.vocabulary, {count, count - 1}).size() == 0) {
    return fmt::format("vocabulary: expected some of it on each of {} shards, got {}", count, t.vocabulary);
  }
  return "";
}

Transformer transformer_of(const Transformer& transformer, const TensorShard& shard) {
  assert(tensor_parallel_fault(transformer, shard.count).empty());
  Transformer t = transformer;
  t.heads /= shard.count;
  t.kv_heads /= shard.count;
  t.ffn /= shard.count;
  t.vocabulary = shard_range(t.vocabulary, shard).size();
  return t;
}

TensorSlice::TensorSlice(const Parameter& whole, const TensorShard& shard) {
  if (whole.split == Split::none || shard.count == 1) {
    add(0, whole.count());
  } else if (whole.split == Split::columns) {
    const std::int64_t columns = whole.shape.back();
    const ShardRange range = shard_range(columns, shard);
    for (std::int64_t row = 0; row < whole.shape.front(); ++row) add(row * columns + range.first, range.size());
  } else {
    const std::int64_t width = whole.count() / whole.shape.front();
    std::int64_t section = 0;
    for (const std::int64_t rows : whole.sections) {
      const ShardRange range = shard_range(rows, shard);
      add((section + range.first) * width, range.size() * width);
      section += rows;
    }
    assert(section == whole.shape.front());
  }
}

void TensorSlice::add(std::int64_t first, std::int64_t count) {
  runs_.push_back({first, count_, count});
  count_ += count;
}

void TensorSlice::take(std::span<const float> whole, std::span<float> held) const {
  for (const Run& run : runs_) std::copy_n(whole.begin() + run.whole, run.count, held.begin() + run.held);
}

void TensorSlice::put(std::span<const float> held, std::span<float> whole) const {
  for (const Run& run : runs_) std::copy_n(held.begin() + run.held, run.count, whole.begin() + run.whole);
}

std::vector<HeldParameter> held_parameters(const Transformer& transformer, std::int64_t first, std::int64_t last,
                                           const TensorShard& shard, bool table_copy) {
  std::vector<HeldParameter> held;
  const auto hold = [&](const Parameter& parameter, bool copy) {
    held.push_back({parameter, TensorSlice(parameter, shard), copy});
  };
  for (std::int64_t layer = first; layer < last; ++layer) {
    for (const Parameter& parameter : layer_parameters(transformer, layer)) hold(parameter, false);
  }
  if (table_copy) hold(layer_parameters(transformer, 0).front(), true);
  return held;
}

}  // namespace stagecraft
