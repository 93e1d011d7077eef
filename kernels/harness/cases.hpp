// Which operations the harness knows, at which shapes: plain lists, to be extended by hand.
#pragma once

#include <vector>

#include "kernels/harness/harness.hpp"

namespace stagecraft::kernels {

// Small and odd shapes that reach every branch of the CPU operations.
std::vector<Case> test_cases();

// Shapes of a GPT-2 and of a Llama layer, for timing.
std::vector<Case> perf_cases();

std::vector<GradientCase> gradient_cases();

}  // namespace stagecraft::kernels
