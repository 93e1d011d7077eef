// Comma-separated values as RFC 4180 has them: quoted fields with "" for a quote, commas and line breaks inside quotes,
// LF or CRLF line ends, an optional byte-order mark; empty lines are passed over.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stagecraft {

struct CsvRow {
  std::size_t line = 0;             // in the file, from 1, where the row starts
  std::vector<std::string> fields;  // as many as there are columns
};

class CsvTable {
 public:
  // Throws bad_input "file: line 3: ..." for an unclosed quote, text behind a closing quote, a row with another number
  // of fields than the heading, a heading that is missing, empty or names a column twice, and a NUL byte.
  CsvTable(std::string_view text, std::string file);

  const std::string& file() const { return file_; }
  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<CsvRow>& rows() const { return rows_; }
  std::optional<std::size_t> find(std::string_view column) const;
  // Empty text when the table has no such column.
  const std::string& at(const CsvRow& row, std::string_view column) const;

 private:
  std::string file_;
  std::vector<std::string> columns_;
  std::vector<CsvRow> rows_;
};

}  // namespace stagecraft
