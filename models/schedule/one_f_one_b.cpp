#include "models/schedule/one_f_one_b.hpp"

#include <algorithm>
#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_one_f_one_b(const ScheduleShape& shape) { return refuse_all_but_plain(shape); }

ComputeSchedule generate_one_f_one_b(const ScheduleShape& shape) {
  assert(refuse_one_f_one_b(shape).empty());
  ComputeSchedule schedule{"1f1b", shape.ranks, shape.microbatches, {}};
  schedule.ranks.resize(static_cast<std::size_t>(shape.ranks));
  for (int rank = 0; rank < shape.ranks; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(shape.microbatches));
    const auto add = [&](ActionKind kind, int m) { actions.push_back({kind, StageId{rank}, MicrobatchId{m}}); };
    const int warm_up = std::min(shape.microbatches, shape.ranks - 1 - rank);
    for (int m = 0; m < warm_up; ++m) add(ActionKind::forward, m);
    for (int m = warm_up; m < shape.microbatches; ++m) {
      add(ActionKind::forward, m);
      add(ActionKind::backward, m - warm_up);
    }
    for (int m = shape.microbatches - warm_up; m < shape.microbatches; ++m) add(ActionKind::backward, m);
  }
  return schedule;
}

}  // namespace stagecraft
