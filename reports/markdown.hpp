// Pieces of Markdown: text from files must not become markup.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stagecraft {

// Printable, cut to `limit`, with the characters escaped that would start markup or end a table's cell.
std::string markdown_text(std::string_view text, std::size_t limit = 400);

// The first row is the heading; the first column is left-aligned, the others right. Cells are escaped.
std::string markdown_table(std::span<const std::vector<std::string>> rows);

}  // namespace stagecraft
