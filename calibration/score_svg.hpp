// Predicted against measured step times, as a stand-alone picture.
#pragma once

#include <span>
#include <string>

#include "calibration/replay.hpp"

namespace stagecraft {

// A square a source: a dot a scored row on logarithmic axes, the diagonal, and lines at 10 % either side.
// Sources without scored rows are left out; empty when none has any.
std::string to_svg(std::span<const SourceScore> scores);

}  // namespace stagecraft
