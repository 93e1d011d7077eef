#include "models/schedule/interleaved_zero_bubble.hpp"

#include <algorithm>
#include <cassert>

#include "models/schedule/interleaved_table.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_interleaved_zero_bubble(const ScheduleShape& shape) {
  return first_refusal({refuse_group(shape), refuse_slices(shape), refuse_unequal_rounds(shape)});
}

ComputeSchedule generate_interleaved_zero_bubble(const ScheduleShape& shape) {
  assert(refuse_interleaved_zero_bubble(shape).empty());
  const int p = shape.ranks, v = shape.stages_per_rank, group = microbatches_per_round(shape);
  const InterleavedTable table(v, shape.microbatches, group);
  ComputeSchedule schedule{"interleaved-zero-bubble", p * v, shape.microbatches, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(3 * static_cast<std::size_t>(table.size()));
    const auto add = [&](ActionKind kind, InterleavedTable::Entry entry) {
      actions.push_back({kind, StageId{entry.chunk * p + rank}, MicrobatchId{entry.microbatch}});
    };
    const std::int64_t warm_up = std::min<std::int64_t>(table.size(), p - rank - 1 + (v - 1LL) * group);
    for (std::int64_t k = 0; k < warm_up; ++k) add(ActionKind::forward, table.forward(k));
    for (std::int64_t k = 0; k < table.size(); ++k) {
      if (warm_up + k < table.size()) add(ActionKind::forward, table.forward(warm_up + k));
      add(ActionKind::backward_input, table.backward(k));
      if (k >= rank) add(ActionKind::backward_weight, table.backward(k - rank));
    }
    for (std::int64_t k = std::max<std::int64_t>(0, table.size() - rank); k < table.size(); ++k) {
      add(ActionKind::backward_weight, table.backward(k));
    }
  }
  return schedule;
}

}  // namespace stagecraft
