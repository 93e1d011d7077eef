// HANAYO HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_hanayo(shape) is empty.
ComputeSchedule generate_hanayo(const ScheduleShape& shape);
std::string refuse_hanayo(const ScheduleShape& shape);

}  // namespace stagecraft
