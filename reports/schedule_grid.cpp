#include "reports/schedule_grid.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace stagecraft {
namespace {

constexpr int max_cells_a_unit = 4;  // of the shortest action
constexpr double rounding = 1e-6;    // relative

// Black on the light hues of the SVG pictures, from the 256-colour palette.
std::string_view colour_of(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return "\x1b[30;48;5;110m";
    case ActionKind::backward:
      return "\x1b[30;48;5;215m";
    case ActionKind::backward_input:
      return "\x1b[30;48;5;222m";
    default:
      return "\x1b[30;48;5;115m";
  }
}
constexpr std::string_view idle_colour = "\x1b[2m", plain = "\x1b[0m";

bool has_one_stage_a_rank(const ComputeSchedule& schedule) {
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      if (action.stage.value != static_cast<std::int32_t>(rank)) return false;
    }
  }
  return true;
}

std::string label(const Action& action, bool without_stage) {
  std::string text =
      without_stage ? fmt::format("{}{}", letters(action.kind), action.microbatch.value) : to_string(action);
  if (action.overlapped) text += '&';
  return text;
}

// The time of a cell.
double cell_time(const ClockedSchedule& clock) {
  double shortest = std::numeric_limits<double>::infinity();
  for (const auto& spans : clock.spans) {
    for (const ClockSpan& span : spans) {
      if (span.end > span.start) shortest = std::min(shortest, span.end - span.start);
    }
  }
  const auto fits = [&](double cell) {
    const auto is_whole = [&](double time) {
      return std::abs(time / cell - std::round(time / cell)) < rounding * time / cell + rounding;
    };
    return std::all_of(clock.spans.begin(), clock.spans.end(), [&](const auto& spans) {
      return std::all_of(spans.begin(), spans.end(),
                         [&](const ClockSpan& span) { return is_whole(span.start) && is_whole(span.end); });
    });
  };
  for (int parts = 1; parts <= max_cells_a_unit; ++parts) {
    if (fits(shortest / parts)) return shortest / parts;
  }
  return shortest;
}

// One line in the making, counted in characters without colours.
class Line {
 public:
  Line(bool colour, std::size_t width) : colour_(colour), width_(width) {}

  void add(std::string_view text, std::size_t width, std::string_view colour) {
    if (used_ + width > width_) full_ = true;
    if (full_) return;
    used_ += width;
    // Colours only the cell, not the gap to the next one.
    if (colour_) text_ += colour;
    text_ += fmt::format("{:<{}}", text, width - 1);
    if (colour_) text_ += plain;
    text_ += ' ';
  }
  bool full() const { return full_; }
  std::string take() {
    text_.erase(text_.find_last_not_of(' ') + 1);
    return std::move(text_);
  }

 private:
  bool colour_, full_ = false;
  std::size_t width_, used_ = 0;
  std::string text_;
};

}  // namespace

std::string format_schedule_grid(const ComputeSchedule& schedule, const ClockedSchedule& clock,
                                 const ScheduleGridOptions& options) {
  const bool without_stage = has_one_stage_a_rank(schedule);
  std::size_t width = 2;
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) width = std::max(width, label(action, without_stage).size());
  }
  ++width;
  const double cell = cell_time(clock);
  const auto cells = [&](double time) { return static_cast<std::size_t>(std::lround(time / cell)); };
  const std::size_t end = cells(clock.makespan), ranks = schedule.ranks.size(), shown = std::min(ranks, options.rows);
  const std::size_t gutter = fmt::format("rank {}", ranks - 1).size();
  const std::size_t room = options.columns == 0 ? end * width : options.columns - gutter - 3;
  const std::string going_on(width - 1, '-');

  std::string grid;
  for (std::size_t rank = 0; rank < shown; ++rank) {
    Line line(options.colour, room);
    const auto& actions = schedule.ranks[rank];
    std::size_t at = 0;
    for (std::size_t i = 0; i < actions.size() && !line.full(); ++i) {
      // Where times are no whole cells, an action may come a cell late, but none is lost.
      const ClockSpan& span = clock.spans[rank][i];
      const std::size_t start = std::max(at, cells(span.start)), stop = std::max(start + 1, cells(span.end));
      for (; at < start; ++at) line.add(".", width, idle_colour);
      line.add(label(actions[i], without_stage), width, colour_of(actions[i].kind));
      for (++at; at < stop; ++at) line.add(going_on, width, colour_of(actions[i].kind));
    }
    for (; at < end && !line.full(); ++at) line.add(".", width, idle_colour);
    grid += fmt::format("{:<{}} | {}\n", fmt::format("rank {}", rank), gutter, line.take());
  }
  if (shown < ranks) grid += fmt::format("... ranks {} to {}\n", shown, ranks - 1);
  const std::size_t seen = room / width;
  if (seen < end)
    grid += fmt::format("... shows {:g} of {:g} units of time\n", static_cast<double>(seen) * cell, clock.makespan);
  return grid;
}

}  // namespace stagecraft
