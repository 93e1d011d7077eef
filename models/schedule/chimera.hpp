// Chimera: two 1F1B pipelines in opposite directions (Li and Hoefler 2021, arXiv 2107.06925, figures 2 and 3, one pair,
// units joined by direct concatenation).
//
// PICTURE
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_chimera(shape) is empty.
ComputeSchedule generate_chimera(const ScheduleShape& shape);
std::string refuse_chimera(const ScheduleShape& shape);

}  // namespace stagecraft
