#include "models/schedule/inference.hpp"

#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_inference(const ScheduleShape& shape) {
  return first_refusal({refuse_group(shape), refuse_slices(shape)});
}

ComputeSchedule generate_inference(const ScheduleShape& shape) {
  assert(refuse_inference(shape).empty());
  const int p = shape.ranks, v = shape.stages_per_rank, m = shape.microbatches;
  ComputeSchedule schedule{"inference", p * v, m, {}};
  schedule.forward_only = true;
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(static_cast<std::size_t>(v) * static_cast<std::size_t>(m));
    for (int first = 0; first < m;) {
      const int end = m - first < 2 * p ? m : first + p;
      for (int chunk = 0; chunk < v; ++chunk) {
        for (int k = first; k < end; ++k) {
          actions.push_back({ActionKind::forward, StageId{chunk * p + rank}, MicrobatchId{k}});
        }
      }
      first = end;
    }
  }
  return schedule;
}

}  // namespace stagecraft
