// The fixed parts of the HTML report: its style sheet and its script.
#pragma once

#include <string_view>

namespace stagecraft {

std::string_view page_style();

// Zoom, pan, and a tip that shows one action in all traces at once. Reads the SVG that is there and changes nothing
// else; without it the page is complete.
std::string_view page_script();

}  // namespace stagecraft
