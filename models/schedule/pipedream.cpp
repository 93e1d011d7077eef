#include "models/schedule/pipedream.hpp"

#include <fmt/format.h>

#include <cassert>

#include "models/schedule/one_f_one_b.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

ComputeSchedule without_flush(std::string name, ScheduleShape shape, WeightUpdates updates) {
  shape.group = 0;  // says when weights change, not in which order
  ComputeSchedule schedule = generate_one_f_one_b(shape);
  schedule.name = std::move(name);
  schedule.updates = updates;
  return schedule;
}

int update_group(const ScheduleShape& shape) { return shape.group > 0 ? shape.group : shape.microbatches; }

}  // namespace

std::string refuse_pipedream(const ScheduleShape& shape) { return refuse_all_but_plain(shape); }

ComputeSchedule generate_pipedream(const ScheduleShape& shape) {
  assert(refuse_pipedream(shape).empty());
  return without_flush("pipedream", shape, WeightUpdates::pipedream);
}

std::string refuse_pipedream_2bw(const ScheduleShape& shape) {
  const int p = shape.ranks, m = shape.microbatches, group = update_group(shape);
  std::string refusal = first_refusal({refuse_stages_per_rank(shape, 1), refuse_slices(shape)});
  if (!refusal.empty()) return refusal;
  if (group < p) return fmt::format("needs at least P = {} micro-batches an update, got {}", p, group);
  if (m % group == 0) return "";
  const std::string below = m > group ? fmt::format("{} or ", m / group * group) : "";
  return fmt::format("needs M divisible by group = {}: {}{}, got {}", group, below, (m / group + 1) * group, m);
}

ComputeSchedule generate_pipedream_2bw(const ScheduleShape& shape) {
  assert(refuse_pipedream_2bw(shape).empty());
  ComputeSchedule schedule = without_flush("pipedream-2bw", shape, WeightUpdates::two_buffered);
  schedule.update_group = update_group(shape);
  return schedule;
}

}  // namespace stagecraft
