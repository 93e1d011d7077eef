// What plans are ranked by.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <utility>

namespace stagecraft {

enum class LayoutObjective {
  time,    // of a step
  cost,    // of a step: time, by what the devices in use cost an hour
  memory,  // of the device that is nearest to its limit
};

inline std::span<const std::pair<std::string_view, LayoutObjective>> layout_objective_names() {
  static constexpr std::array<std::pair<std::string_view, LayoutObjective>, 3> names{
      {{"time", LayoutObjective::time}, {"cost", LayoutObjective::cost}, {"memory", LayoutObjective::memory}}};
  return names;
}

}  // namespace stagecraft
