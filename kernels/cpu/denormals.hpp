// Denormal numbers (below 1.2e-38) cost x86 about a hundred cycles an operation. Training makes them: a first moment of
// AdamW whose gradient stays zero decays into them within a thousand steps and then slows every later step down.
#pragma once

namespace stagecraft::kernels::cpu {

// From now on the calling thread takes denormal operands and results as zero; threads that it starts inherit that. All
// threads of a training run must do the same, or results differ in bits. Does nothing on processors other than x86-64.
void flush_denormals_on_this_thread();

}  // namespace stagecraft::kernels::cpu
