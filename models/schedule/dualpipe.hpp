// DUALPIPE HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_dualpipe(shape) is empty.
ComputeSchedule generate_dualpipe(const ScheduleShape& shape);
std::string refuse_dualpipe(const ScheduleShape& shape);

// REQUIRES: refuse_dualpipe_v(shape) is empty.
ComputeSchedule generate_dualpipe_v(const ScheduleShape& shape);
std::string refuse_dualpipe_v(const ScheduleShape& shape);

}  // namespace stagecraft
