#pragma once

namespace stagecraft {
inline constexpr const char* version = "0.1.0";  // as in CMakeLists.txt and CHANGELOG.md
}  // namespace stagecraft
