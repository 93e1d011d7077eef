#include "models/schedule/gpipe.hpp"

#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_gpipe(const ScheduleShape& shape) { return refuse_all_but_plain(shape); }

ComputeSchedule generate_gpipe(const ScheduleShape& shape) {
  assert(refuse_gpipe(shape).empty());
  ComputeSchedule schedule{"gpipe", shape.ranks, shape.microbatches, {}};
  schedule.ranks.resize(static_cast<std::size_t>(shape.ranks));
  for (int rank = 0; rank < shape.ranks; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(shape.microbatches));
    for (const ActionKind kind : {ActionKind::forward, ActionKind::backward}) {
      for (int m = 0; m < shape.microbatches; ++m) actions.push_back({kind, StageId{rank}, MicrobatchId{m}});
    }
  }
  return schedule;
}

}  // namespace stagecraft
