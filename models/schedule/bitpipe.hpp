// BITPIPE HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_bitpipe(shape) is empty.
ComputeSchedule generate_bitpipe(const ScheduleShape& shape);
std::string refuse_bitpipe(const ScheduleShape& shape);

}  // namespace stagecraft
