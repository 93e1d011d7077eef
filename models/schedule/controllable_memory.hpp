// V-Half and V-Min: two stages a rank in a V, about half and a third of 1F1B's memory for some more bubble (Qi, Wan,
// Amar and Lin 2024, arXiv 2405.15362).
//
//   v-min, P = 4 ranks, M = 4 micro-batches, equal times. Capitals: chunk 0, stage r; small: chunk 1, stage 2P-1-r.
//
//   rank 0 | F0 F1 F2 .  .  .  .  f0 i0 w0 f1 i1 w1 .  .  I0 W0 F3 .  f2 i2 I1 w2 W1 .  f3 i3 I2 w3 W2 .  .  .  I3 W3
//   rank 1 | .  F0 F1 .  .  .  f0 .  f1 i0 w0 F2 .  .  I0 i1 w1 W0 f2 F3 I1 i2 w2 W1 f3 .  I2 i3 w3 W2 .  .  I3 W3 .
//   rank 2 | .  .  F0 F1 .  f0 .  f1 .  .  i0 w0 F2 I0 W0 .  i1 f2 w1 I1 F3 W1 i2 f3 w2 I2 W2 .  i3 w3 .  I3 W3 .  .
//   rank 3 | .  .  .  F0 f0 F1 f1 .  .  .  .  i0 I0 w0 W0 F2 f2 i1 I1 w1 W1 F3 f3 i2 I2 w2 W2 .  .  i3 I3 w3 W3 .  .
//
// A building block says in which slots rank r runs F, f, i and I of a micro-batch; repeated every 6 slots it fills all
// of them, the two weight gradients included. How long its forwards live until their gradients is the memory.
//   V-Half: 2r, 3P-2-r, 3P-1+2r+d, 6P-2-r+d, with d = 3 where P is even, else 0
//   V-Min:  r,  2P-1-r, 2P+r+d,    4P-1-r+d, with d = 2 where P is a multiple of 3, else 0
// Then what comes before and behind the steady state is squeezed: moved to earlier idle slots that its inputs and the
// memory of the fullest rank allow; with the weight gradients in place, and again, behind the steady state, without
// them. They come back in the order of need: the second chunk's first.
//
// Equal times f = i = w, free messages, M >= 2P and P >= 2, idle time of a rank from first start to last end, in f:
//   V-Half: 3P-7 for even P > 2, 1 for P = 2, 3P-4 for odd P    V-Min: 4P-5, and 2 less where P is a multiple of 3
// In flight until the weight gradient, in micro-batches: (P+2)/2 rounded down for V-Half, (P+4)/3 for V-Min, on the
// fullest rank. The idle times are those measured for P = 2 .. 12, by test.
#pragma once

#include "models/schedule/schedule.hpp"

namespace stagecraft {

// REQUIRES: refuse_controllable_memory(shape) is empty.
ComputeSchedule generate_v_half(const ScheduleShape& shape);
ComputeSchedule generate_v_min(const ScheduleShape& shape);
std::string refuse_controllable_memory(const ScheduleShape& shape);

}  // namespace stagecraft
