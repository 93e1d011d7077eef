#include "models/schedule/seq_one_f_one_b.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {

std::string refuse_seq_one_f_one_b(const ScheduleShape& shape) {
  std::string refusal = first_refusal({refuse_stages_per_rank(shape, 1), refuse_group(shape)});
  if (!refusal.empty() || shape.slices >= 1) return refusal;
  return fmt::format("needs at least one slice a micro-batch, got {}", shape.slices);
}

ComputeSchedule generate_seq_one_f_one_b(const ScheduleShape& shape) {
  assert(refuse_seq_one_f_one_b(shape).empty());
  const int slices = shape.slices;
  const int all = shape.microbatches * slices;
  ComputeSchedule schedule{"seq-1f1b", shape.ranks, all, {}};
  schedule.slices = slices;
  schedule.ranks.resize(static_cast<std::size_t>(shape.ranks));
  for (int rank = 0; rank < shape.ranks; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(2 * static_cast<std::size_t>(all));
    const auto forward = [&](int i) { actions.push_back({ActionKind::forward, StageId{rank}, MicrobatchId{i}}); };
    const auto backward = [&](int i) {
      const int last_of_microbatch = i / slices * slices + slices - 1;
      actions.push_back({ActionKind::backward, StageId{rank}, MicrobatchId{last_of_microbatch - i % slices}});
    };
    const int warm_up = std::min(all, shape.ranks - 2 - rank + slices);
    for (int i = 0; i < warm_up; ++i) forward(i);
    for (int i = warm_up; i < all; ++i) {
      forward(i);
      backward(i - warm_up);
    }
    for (int i = all - warm_up; i < all; ++i) backward(i);
  }
  return schedule;
}

}  // namespace stagecraft
