#include "models/schedule/eager_one_f_one_b.hpp"

#include <algorithm>
#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_eager_one_f_one_b(const ScheduleShape& shape) { return refuse_all_but_plain(shape); }

ComputeSchedule generate_eager_one_f_one_b(const ScheduleShape& shape) {
  assert(refuse_eager_one_f_one_b(shape).empty());
  const int p = shape.ranks, m = shape.microbatches;
  ComputeSchedule schedule{"eager-1f1b", p, m, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(m));
    const auto add = [&](ActionKind kind, int microbatch) {
      actions.push_back({kind, StageId{rank}, MicrobatchId{microbatch}});
    };
    const int warm_up = std::min(m, 2 * (p - rank) - 1);
    for (int k = 0; k < warm_up; ++k) add(ActionKind::forward, k);
    for (int k = 0; k < m; ++k) {
      add(ActionKind::backward, k);
      if (warm_up + k < m) add(ActionKind::forward, warm_up + k);
    }
  }
  return schedule;
}

}  // namespace stagecraft
