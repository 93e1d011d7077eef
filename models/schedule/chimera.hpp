// Chimera: two 1F1B pipelines in opposite directions (Li and Hoefler 2021, arXiv 2107.06925, figures 2 and 3; one pair
// of pipelines, units of P micro-batches joined by direct concatenation).
//
//   P = 4 ranks, M = 8 micro-batches, backward as long as forward:
//
//          | first unit                                | second
//   rank 0 | F0 F1 .  F4 B4 F5 B5 B0 F2 B1 F3 F6 B6 F7 B7 B2 .  B3
//   rank 1 | .  F0 F4 F1 F5 B4 B0 B5 B1 F2 F6 F3 F7 B6 B2 B7 B3 .
//   rank 2 | .  F4 F0 F5 F1 B0 B4 B1 B5 F6 F2 F7 F3 B2 B6 B3 B7 .
//   rank 3 | F4 F5 .  F0 B0 F1 B1 B4 F6 B5 F7 F2 B2 F3 B3 B6 .  B7
//
// The down pipeline has stage s on rank s and takes micro-batches 0 .. M/2-1; the up pipeline has stage s on rank P-1-s
// and takes M/2 .. M-1. Every rank keeps two stages' weights, whose gradients are summed over the two ranks of a stage.
// The order is that of the slots in two_way_waves.hpp.
//
// Makespan with equal stages and free messages: for b = f, (2M + P-2) f where M is a multiple of P, and generally with
// M = kP + q, 0 < q <= P: (2P (k+1) + q - 2) f. For b = 2f, M = P: (3M + 2 (P-2)) f; more units take longer than 3M + 2
// (P-2). In flight on rank r, where M is a multiple of P: P/2 + 1 + min(r, P-1-r), less than 1F1B's first rank and more
// even.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_chimera(shape) is empty.
ComputeSchedule generate_chimera(const ScheduleShape& shape);
std::string refuse_chimera(const ScheduleShape& shape);

}  // namespace stagecraft
