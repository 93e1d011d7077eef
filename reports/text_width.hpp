// Keeping text for terminals and e-mails within 100 columns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace stagecraft {

inline constexpr std::size_t max_columns = 100;

// Breaks one paragraph at spaces, later lines indented by two; ends in "\n". A longer word is broken.
std::string wrap(std::string_view paragraph, std::size_t columns = max_columns);

// Code points in the longest line.
std::size_t longest_line(std::string_view text);

}  // namespace stagecraft
