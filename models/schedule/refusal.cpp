#include "models/schedule/refusal.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace stagecraft {
namespace {

bool has_equal_rounds(int ranks, int microbatches) { return microbatches % std::max(1, microbatches / ranks) == 0; }

}  // namespace

std::string refuse_group(const ScheduleShape& shape) {
  return shape.group == 0 ? "" : fmt::format("forms no groups of micro-batches, got group {}", shape.group);
}

std::string refuse_slices(const ScheduleShape& shape) {
  return shape.slices == 1 ? "" : fmt::format("does not cut micro-batches into token slices, got {}", shape.slices);
}

std::string refuse_stages_per_rank(const ScheduleShape& shape, int stages) {
  if (shape.stages_per_rank == stages) return "";
  const std::string count = stages == 1 ? "one stage" : stages == 2 ? "two stages" : fmt::format("{} stages", stages);
  return fmt::format("needs {} a rank, got {}", count, shape.stages_per_rank);
}

std::string first_refusal(std::initializer_list<std::string> refusals) {
  const auto* first = std::find_if(refusals.begin(), refusals.end(), [](const auto& text) { return !text.empty(); });
  return first == refusals.end() ? "" : *first;
}

std::string refuse_all_but_plain(const ScheduleShape& shape) {
  return first_refusal({refuse_stages_per_rank(shape, 1), refuse_group(shape), refuse_slices(shape)});
}

std::string refuse_unequal_rounds(const ScheduleShape& shape) {
  const int m = shape.microbatches;
  if (has_equal_rounds(shape.ranks, m)) return "";
  // Every multiple of P is legal, so both searches end.
  int below = m - 1, above = m + 1;
  while (!has_equal_rounds(shape.ranks, below)) --below;
  while (!has_equal_rounds(shape.ranks, above)) ++above;
  return fmt::format("needs M divisible into M/P = {} rounds (P = {}): {} or {} micro-batches, got {}", m / shape.ranks,
                     shape.ranks, below, above, m);
}

int microbatches_per_round(const ScheduleShape& shape) {
  return shape.microbatches / std::max(1, shape.microbatches / shape.ranks);
}

}  // namespace stagecraft
