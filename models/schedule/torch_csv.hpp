// torch.distributed.pipelining's schedule files: a line a rank, a cell an action, no heading.
//
//   compute_only    F, B, I, W and overlapped pairs, "(0F7;7B3)OVERLAP_F_B"; torch adds the communication. torch's
//   default.
//                   Needs torch 2.6 or newer, 2.10 with overlapped pairs.
//   compute_comms   everything explicit: SEND_F, RECV_F, SEND_B, RECV_B, REDUCE_GRAD, and under FSDP UNSHARD and
//   RESHARD.
//                   Needs torch 2.10 or newer.
//
// docs/schedules.md says how torch runs them and where the versions come from.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "models/schedule/schedule.hpp"

namespace stagecraft {

enum class TorchFormat { compute_only, compute_comms };

// Lines end in "\n"; no empty cells are written. compute_comms is the schedule lowered with receives in the order of
// the sends, as NCCL pairs them, and with a REDUCE_GRAD of each stage, where torch scales gradients, too.
// Throws bad_input with the reason for what torch's files cannot say: a stage on two ranks, token slices, forwards
// alone, weights that change while micro-batches are in flight.
// REQUIRES: a schedule that passed check().
std::string to_torch_csv(const ComputeSchedule& schedule, TorchFormat format = TorchFormat::compute_only);
// The list as it is, UNSHARD and RESHARD included, less STEP and REDUCE_TIED, which torch does not know. Stages without
// a REDUCE_GRAD get one at the end of their work. Throws as above.
std::string to_torch_csv(const LoweredSchedule& schedule);

struct TorchSchedule {
  ComputeSchedule computes;
  std::optional<LoweredSchedule> lowered;  // of a compute_comms file: all it says, and our STEPs
};

// Reads both formats ("\n" or "\r\n"; empty cells are idle). Cells of UNSHARD, RESHARD or REDUCE_GRAD alone do not make
// a file compute_comms: torch writes such files, too.
// Throws bad_input "file: line 3, cell 5: ..." for text that is no action, and "file: ..." with the marked grid for
// schedules that fail check() and for stages on two ranks.
TorchSchedule read_torch_csv(std::string_view text, const std::string& file);
// The computations of either format.
ComputeSchedule from_torch_csv(std::string_view text, const std::string& file);

}  // namespace stagecraft
