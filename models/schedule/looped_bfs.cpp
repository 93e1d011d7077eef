#include "models/schedule/looped_bfs.hpp"

#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_looped_bfs(const ScheduleShape& shape) {
  return first_refusal({refuse_group(shape), refuse_slices(shape)});
}

ComputeSchedule generate_looped_bfs(const ScheduleShape& shape) {
  assert(refuse_looped_bfs(shape).empty());
  const int p = shape.ranks, v = shape.stages_per_rank, m = shape.microbatches;
  ComputeSchedule schedule{"looped-bfs", p * v, m, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(v) * static_cast<std::size_t>(m));
    for (int chunk = 0; chunk < v; ++chunk) {
      for (int k = 0; k < m; ++k) actions.push_back({ActionKind::forward, StageId{chunk * p + rank}, MicrobatchId{k}});
    }
    for (int chunk = v - 1; chunk >= 0; --chunk) {
      for (int k = m - 1; k >= 0; --k) {
        actions.push_back({ActionKind::backward, StageId{chunk * p + rank}, MicrobatchId{k}});
      }
    }
  }
  return schedule;
}

}  // namespace stagecraft
