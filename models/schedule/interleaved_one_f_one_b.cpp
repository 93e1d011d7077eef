#include "models/schedule/interleaved_one_f_one_b.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <vector>

#include "models/schedule/interleaved_table.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

int group_of(const ScheduleShape& shape) { return shape.group > 0 ? shape.group : shape.ranks; }

bool is_legal_group(int ranks, int group, int microbatches) {
  return ranks <= group && group <= microbatches && (microbatches % group == 0 || microbatches % group >= ranks);
}

// "8 or 12": the values next to `wanted` that are legal, of those from `low` up; `high` bounds the search.
template <class Legal>
std::string nearest_legal(int wanted, int low, int high, const Legal& legal) {
  std::vector<int> found;
  for (int below = std::min(wanted - 1, high); below >= low && found.empty(); --below) {
    if (legal(below)) found.push_back(below);
  }
  for (int above = std::max(wanted + 1, low); above <= high; ++above) {
    if (!legal(above)) continue;
    found.push_back(above);
    break;
  }
  return fmt::format("{}", fmt::join(found, " or "));
}

ComputeSchedule interleave(std::string name, const ScheduleShape& shape, int group) {
  const int p = shape.ranks, v = shape.stages_per_rank;
  const InterleavedTable table(v, shape.microbatches, group);
  ComputeSchedule schedule{std::move(name), p * v, shape.microbatches, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(table.size()));
    const auto add = [&](ActionKind kind, InterleavedTable::Entry entry) {
      actions.push_back({kind, StageId{entry.chunk * p + rank}, MicrobatchId{entry.microbatch}});
    };
    const std::int64_t ahead = 2LL * (p - rank - 1) + (v - 1LL) * group;
    const std::int64_t warm_up = std::min(table.size(), ahead);
    for (std::int64_t k = 0; k < warm_up; ++k) add(ActionKind::forward, table.forward(k));
    for (std::int64_t k = 0; k < table.size(); ++k) {
      if (warm_up + k < table.size()) add(ActionKind::forward, table.forward(warm_up + k));
      add(ActionKind::backward, table.backward(k));
    }
  }
  return schedule;
}

}  // namespace

std::string refuse_interleaved_one_f_one_b(const ScheduleShape& shape) {
  const int p = shape.ranks, m = shape.microbatches, n = group_of(shape);
  if (shape.stages_per_rank < 2) return fmt::format("needs two or more stages a rank, got {}", shape.stages_per_rank);
  if (shape.slices != 1) return refuse_slices(shape);
  if (m < p) return fmt::format("needs M >= P = {} micro-batches, got {}", p, m);
  if (is_legal_group(p, n, m)) return "";
  const std::string groups = nearest_legal(n, p, m, [&](int group) { return is_legal_group(p, group, m); });
  if (n < p || n > m) return fmt::format("needs a group from P = {} to M = {}: {}, got {}", p, m, groups, n);
  // The next multiple of the group is near.
  const std::string counts = nearest_legal(m, n, m + n, [&](int count) { return is_legal_group(p, n, count); });
  if (shape.group == 0) {
    return fmt::format("needs M divisible by P = {}: {}, got {}; or groups of {}", p, counts, m, groups);
  }
  return fmt::format("needs M % group = 0 or >= P = {}: M {} or group {}, got {} % {} = {}", p, counts, groups, m, n,
                     m % n);
}

ComputeSchedule generate_interleaved_one_f_one_b(const ScheduleShape& shape) {
  assert(refuse_interleaved_one_f_one_b(shape).empty());
  return interleave("interleaved-1f1b", shape, group_of(shape));
}

std::string refuse_interleaved_one_f_one_b_torch(const ScheduleShape& shape) {
  return first_refusal({refuse_group(shape), refuse_slices(shape), refuse_unequal_rounds(shape)});
}

ComputeSchedule generate_interleaved_one_f_one_b_torch(const ScheduleShape& shape) {
  assert(refuse_interleaved_one_f_one_b_torch(shape).empty());
  return interleave("interleaved-1f1b-torch", shape, microbatches_per_round(shape));
}

}  // namespace stagecraft
