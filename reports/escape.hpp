// Text from files inside HTML and SVG.
#pragma once

#include <string>
#include <string_view>

namespace stagecraft {

// Safe as element content and inside a quoted attribute: & < > " ' become entities; control characters that XML
// forbids and bytes that are not UTF-8 become "?"; cut to `limit` bytes with "...".
std::string escape(std::string_view text, std::size_t limit = 2000);

}  // namespace stagecraft
