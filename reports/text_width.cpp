#include "reports/text_width.hpp"

#include <algorithm>

namespace stagecraft {

std::string wrap(std::string_view paragraph, std::size_t columns) {
  std::string out, indent;
  while (paragraph.size() > columns - indent.size()) {
    const std::size_t room = columns - indent.size();
    std::size_t cut = paragraph.rfind(' ', room);
    // "3 %" stays together.
    if (cut != std::string_view::npos && cut > 0 && cut + 1 < paragraph.size() && paragraph[cut + 1] == '%') {
      cut = paragraph.rfind(' ', cut - 1);
    }
    if (cut == std::string_view::npos || cut == 0) cut = room;
    out.append(indent).append(paragraph.substr(0, cut)) += '\n';
    paragraph.remove_prefix(paragraph[cut] == ' ' ? cut + 1 : cut);
    indent = "  ";
  }
  return out.append(indent).append(paragraph) += '\n';
}

std::size_t longest_line(std::string_view text) {
  std::size_t longest = 0, current = 0;
  for (const char c : text) {
    if (c == '\n') {
      current = 0;
    } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
      longest = std::max(longest, ++current);
    }
  }
  return longest;
}

}  // namespace stagecraft
