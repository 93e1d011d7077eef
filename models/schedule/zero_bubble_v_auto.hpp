// ZBVAUTO HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Uses shape.times, shape.message and shape.memory_limit. REQUIRES: refuse_zb_v_auto(shape) is empty.
ComputeSchedule generate_zb_v_auto(const ScheduleShape& shape);
std::string refuse_zb_v_auto(const ScheduleShape& shape);

}  // namespace stagecraft
