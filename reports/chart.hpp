// The loss curve as SVG.
#pragma once

#include <span>
#include <string>

namespace stagecraft {

// Losses by step, from step 1: the values thin, and over 40 steps their moving mean drawn strong. Long runs are
// averaged to at most 800 points. Losses that are not numbers leave gaps. Empty when fewer than two are numbers.
std::string loss_svg(std::span<const double> losses);

// 1, 2 or 5 times a power of ten, so that about `count` of it fit into `range`. REQUIRES: range > 0, count > 0.
double nice_step(double range, double count);

}  // namespace stagecraft
