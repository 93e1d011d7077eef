// CM HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_controllable_memory(shape) is empty.
ComputeSchedule generate_v_half(const ScheduleShape& shape);
ComputeSchedule generate_v_min(const ScheduleShape& shape);
std::string refuse_controllable_memory(const ScheduleShape& shape);

}  // namespace stagecraft
