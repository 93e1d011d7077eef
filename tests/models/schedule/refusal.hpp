// What the schedules say of shapes.
#pragma once

#include <string>
#include <string_view>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Why the schedule of that name refuses the shape; empty when it does not, "unknown" when there is none of that name.
inline std::string refusal(std::string_view name, const ScheduleShape& shape) {
  for (const ScheduleKind& kind : schedule_kinds()) {
    if (kind.name == name) return kind.refuse(shape);
  }
  return "unknown";
}
inline bool accepts(std::string_view name, const ScheduleShape& shape) { return refusal(name, shape).empty(); }

}  // namespace stagecraft
