#include "calibration/csv.hpp"

#include <algorithm>
#include <utility>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// One character at a time: a field is plain until a quote opens it, and over at a comma or a line end.
class Reader {
 public:
  Reader(std::string_view text, const std::string& file) : text_(text), file_(file) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }

  // Empty at the end of the text.
  std::optional<CsvRow> next() {
    while (at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r')) skip_line_end();
    if (at_ == text_.size()) return std::nullopt;
    CsvRow row{line_, {}};
    while (true) {
      row.fields.push_back(text_.substr(at_).starts_with('"') ? quoted() : plain());
      if (at_ == text_.size()) return row;
      if (text_[at_] != ',') return skip_line_end(), row;
      ++at_;
    }
  }

 private:
  void skip_line_end() {
    if (text_[at_] == '\n') ++line_;
    ++at_;
  }

  std::string plain() {
    const std::size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    std::string field(text_.substr(at_, end - at_));
    at_ = end;
    return check(std::move(field));
  }

  std::string quoted() {
    const std::size_t opened = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] == '"') {
        if (!text_.substr(at_ + 1).starts_with('"')) break;
        ++at_;
      }
      field += text_[at_];
    }
    if (at_ == text_.size()) throw bad_input("{}: line {}: the quote is never closed", file_, opened);
    ++at_;
    if (at_ < text_.size() && text_.find_first_of(",\r\n", at_) != at_) {
      throw bad_input("{}: line {}: expected a comma behind the closing quote", file_, line_);
    }
    return check(std::move(field));
  }

  std::string check(std::string field) const {
    if (field.find('\0') != std::string::npos) throw bad_input("{}: line {}: a NUL byte, so no text", file_, line_);
    return field;
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

}  // namespace

CsvTable::CsvTable(std::string_view text, std::string file) : file_(std::move(file)) {
  Reader reader(text, file_);
  auto heading = reader.next();
  if (!heading) throw bad_input("{}: expected a line with the names of the columns, got an empty file", file_);
  columns_ = std::move(heading->fields);
  std::vector<std::string> sorted = columns_;
  std::sort(sorted.begin(), sorted.end());
  if (sorted.front().empty()) throw bad_input("{}: line {}: a column without a name", file_, heading->line);
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    throw bad_input("{}: line {}: column '{}' stands there twice", file_, heading->line, printable(*twice));
  }
  while (auto row = reader.next()) {
    if (row->fields.size() != columns_.size()) {
      throw bad_input("{}: line {}: expected {} fields, as many as the heading has, got {}", file_, row->line,
                      columns_.size(), row->fields.size());
    }
    rows_.push_back(std::move(*row));
  }
}

std::optional<std::size_t> CsvTable::find(std::string_view column) const {
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found == columns_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - columns_.begin());
}

const std::string& CsvTable::at(const CsvRow& row, std::string_view column) const {
  static const std::string nothing;
  const auto index = find(column);
  return index ? row.fields[*index] : nothing;
}

}  // namespace stagecraft
