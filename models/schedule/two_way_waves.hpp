// The slots that Chimera and BitPipe share: two pipelines in opposite directions that mesh without a collision.
//
// One slot is one forward or one backward of a stage. A pipeline of S = P V stages starts a micro-batch every second
// slot; its micro-batch m has the forward of stage s in slot s + 2m and the backward in slot 2S-1-s + 2m. Each
// direction takes P/2 micro-batches, together a unit of P; a unit follows the other after 2S slots. The stages of the
// down pipeline go down the ranks and, for V > 1, up again (0 1 2 3, 3 2 1 0, ...), those of the up pipeline the same
// way from the other end.
//
// Why nothing collides when P is even: in the slots of rank r that have the parity of r come, in turn and without a
// gap, P/2 forwards of the down pipeline's chunk 0, of the up pipeline's chunk 1, of the down pipeline's chunk 2 ...,
// and then the backwards, last chunk first. In the other slots it is the same with the pipelines exchanged. Either
// sequence is as long as the distance of two units, so that each unit ends where the next one begins.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// The down pipeline takes micro-batches 0 .. M/2-1, the up pipeline M/2 .. M-1.
// REQUIRES: an even number of ranks and of micro-batches.
ComputeSchedule two_way_waves(std::string_view name, const ScheduleShape& shape);

}  // namespace stagecraft
