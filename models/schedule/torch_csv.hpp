// torch.distributed.pipelining's schedule files: a line a rank, a cell an action, no heading.
#pragma once

#include <string>
#include <string_view>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// compute_only (torch's default, torch 2.6 or newer): F, B, I, W. Lines end in "\n"; no empty cells are written.
std::string to_torch_csv(const ComputeSchedule& schedule);
// compute_comms (torch 2.10 or newer): everything explicit, with REDUCE_GRAD for each stage at the end of its work,
// without STEP and REDUCE_TIED, which torch does not know.
std::string to_torch_csv(const LoweredSchedule& schedule);

// Reads compute_only text ("\n" or "\r\n"). Throws bad_input "file: line 3, cell 5: ..." for text that is no action,
// for communication cells, and "file: ..." with the marked grid for schedules that fail check().
ComputeSchedule from_torch_csv(std::string_view text, const std::string& file);

}  // namespace stagecraft
