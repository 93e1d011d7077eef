#include "planner/framework_space.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

template <class T>
bool contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

Error lacks(std::string_view option, const Abilities& can, const std::vector<std::string>& all,
            std::string_view given) {
  return bad_input("{}: expected what {} has, {}, got {}", option, can.framework, join(all), printable(given));
}

}  // namespace

void leave_possible(SearchSpace& space, std::optional<int>& tensor, const Abilities& can) {
  std::vector<std::string> schedules, stages;
  for (const PipelineSchedule schedule : can.schedules) schedules.emplace_back(name(schedule));
  if (space.schedule && !contains(schedules, *space.schedule)) {
    throw lacks("--schedule", can, schedules, *space.schedule);
  }
  std::erase_if(space.schedules, [&](const std::string& schedule) { return !contains(schedules, schedule); });
  if (space.schedules.empty()) space.schedules = schedules;

  if (space.recompute && !contains(can.recompute, *space.recompute)) {
    std::vector<std::string> modes;
    for (const Recompute mode : can.recompute) modes.emplace_back(name(mode));
    throw lacks("--recompute", can, modes, name(*space.recompute));
  }
  std::erase_if(space.recomputes, [&](Recompute mode) { return !contains(can.recompute, mode); });

  for (const int stage : can.zero) stages.push_back(std::to_string(stage));
  if (!contains(can.zero, space.zero)) throw lacks("--zero", can, stages, std::to_string(space.zero));
  const auto only_one = [&](std::string_view option, std::string_view what, std::int64_t given) {
    if (given <= 1) return;
    throw bad_input("{}: expected 1, as {} has no {}{}, got {}", option, can.framework, what,
                    space.zero > 0 ? fmt::format(" beside ZeRO {}", space.zero) : "", given);
  };
  if (!contains(can.zero_with_pipelines, space.zero)) {
    only_one("--stages", "pipelines", space.stages.value_or(1));
    only_one("--pipeline", "pipelines", space.ranks.value_or(1));
    only_one("--cuts", "pipelines", std::ssize(space.cuts) + 1);
    space.stages = 1;
  }
  if (!contains(can.zero_with_tensor, space.zero)) {
    only_one("--tensor", "tensor parallelism", tensor.value_or(1));
    tensor = 1;
  }
  space.same_width = true;
}

bool shards_anywhere(const Abilities& can) {
  return contains(can.zero, 1) && contains(can.zero_with_pipelines, 1) && contains(can.zero_with_tensor, 1);
}

}  // namespace stagecraft
