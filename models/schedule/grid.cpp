#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "models/schedule/checker.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_width = 100;
constexpr std::size_t max_rows = 24;

// A stretch of rows or columns that holds `middle` and is at most `size` long.
struct Window {
  std::size_t first, last;  // [first, last)
};

Window around(std::size_t middle, std::size_t size, std::size_t total) {
  if (total <= size) return {0, total};
  const std::size_t first = std::min(middle > size / 2 ? middle - size / 2 : 0, total - size);
  return {first, first + size};
}

}  // namespace

std::string format_grid(const ComputeSchedule& schedule, const std::vector<ScheduleFault>& faults) {
  std::size_t longest = 1, columns = 0;
  for (const auto& actions : schedule.ranks) {
    columns = std::max(columns, actions.size());
    for (const Action& action : actions) longest = std::max(longest, to_string(action).size());
  }
  const auto marked = [&](std::size_t rank, std::size_t position) {
    return std::any_of(faults.begin(), faults.end(), [&](const ScheduleFault& fault) {
      return fault.rank == static_cast<int>(rank) && fault.position == static_cast<int>(position);
    });
  };
  const auto first_fault = std::find_if(
      faults.begin(), faults.end(), [](const ScheduleFault& fault) { return fault.rank >= 0 && fault.position >= 0; });
  const bool has_mark = first_fault != faults.end();
  const auto fault_row = has_mark ? static_cast<std::size_t>(first_fault->rank) : 0;
  const auto fault_column = has_mark ? static_cast<std::size_t>(first_fault->position) : 0;

  const std::size_t label = fmt::format("rank {}", schedule.ranks.size()).size();
  const std::size_t cell = longest + 2;             // room for >marks<
  const std::size_t room = max_width - label - 11;  // the bar, and "... " on both sides
  const Window shown = around(fault_column, std::max<std::size_t>(room / cell, 1), columns);
  const Window rows = around(fault_row, max_rows, schedule.ranks.size());

  std::string grid;
  if (rows.first > 0) grid += fmt::format("... ranks 0 to {}\n", rows.first - 1);
  for (std::size_t rank = rows.first; rank < rows.last; ++rank) {
    const auto& actions = schedule.ranks[rank];
    std::string line = fmt::format("{:<{}} |", fmt::format("rank {}", rank), label);
    if (shown.first > 0) line += " ...";
    for (std::size_t i = shown.first; i < std::min(shown.last, actions.size()); ++i) {
      const std::string text = to_string(actions[i]);
      line += fmt::format("{:<{}}", marked(rank, i) ? ">" + text + "<" : " " + text, cell);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    if (actions.size() > shown.last) line += " ...";
    grid += line + "\n";
  }
  if (rows.last < schedule.ranks.size()) {
    grid += fmt::format("... ranks {} to {}\n", rows.last, schedule.ranks.size() - 1);
  }
  return grid;
}

}  // namespace stagecraft
