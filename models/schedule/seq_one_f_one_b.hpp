// SEQ HEADER
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_seq_one_f_one_b(shape) is empty.
ComputeSchedule generate_seq_one_f_one_b(const ScheduleShape& shape);
std::string refuse_seq_one_f_one_b(const ScheduleShape& shape);

}  // namespace stagecraft
