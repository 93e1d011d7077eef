// The slots that Chimera and BitPipe share: two pipelines in opposite directions that mesh without a collision.
//
// One slot is one forward or one backward of a stage. A pipeline of S = P V stages starts a micro-batch every second
// slot; micro-batch m runs its forward on stage s in slot s + 2m and its backward in slot 2S-1-s + 2m. Each direction
// takes P/2 micro-batches, together a unit of P; units follow each other every 2S slots. Stages go down the ranks and
// up again (0 1 2 3 | 3 2 1 0 ...), in the second pipeline from the other end.
//
// Why nothing collides, for even P: the slots of rank r that have the parity of r are taken in turn, P/2 at a time and
// without a gap, by the down pipeline's first chunk, the up pipeline's second, the down pipeline's third ..., first
// forwards, then backwards in reverse; those of the other parity likewise, with the pipelines exchanged. Either
// sequence takes 2S slots, as long as a unit: so it meets the next unit's end to end.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// The down pipeline takes micro-batches 0 .. M/2-1, the up pipeline M/2 .. M-1.
// REQUIRES: an even number of ranks and of micro-batches.
ComputeSchedule two_way_waves(std::string_view name, const ScheduleShape& shape);

}  // namespace stagecraft
