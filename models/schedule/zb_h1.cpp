#include "models/schedule/zb_h1.hpp"

#include <algorithm>
#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_zb_h1(const ScheduleShape& shape) { return refuse_all_but_plain(shape); }

ComputeSchedule generate_zb_h1(const ScheduleShape& shape) {
  assert(refuse_zb_h1(shape).empty());
  const int p = shape.ranks, m = shape.microbatches;
  ComputeSchedule schedule{"zb-h1", p, m, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(3 * static_cast<std::size_t>(m));
    const auto add = [&](ActionKind kind, int microbatch) {
      actions.push_back({kind, StageId{rank}, MicrobatchId{microbatch}});
    };
    const int warm_up = std::min(m, p - 1 - rank);
    for (int k = 0; k < warm_up; ++k) add(ActionKind::forward, k);
    for (int k = 0; k < m; ++k) {
      if (warm_up + k < m) add(ActionKind::forward, warm_up + k);
      add(ActionKind::backward_input, k);
      if (k >= rank) add(ActionKind::backward_weight, k - rank);
    }
    for (int k = std::max(0, m - rank); k < m; ++k) add(ActionKind::backward_weight, k);
  }
  return schedule;
}

}  // namespace stagecraft
