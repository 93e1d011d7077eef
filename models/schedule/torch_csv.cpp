#include "models/schedule/torch_csv.hpp"

#include <algorithm>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_ranks = 4096;
constexpr std::size_t max_cells = 10'000'000;

// Cells in torch's letters; false for what its files cannot say.
bool is_known_to_torch(ActionKind kind) {
  return kind != ActionKind::optimizer_step && kind != ActionKind::reduce_tied;
}

std::string to_csv(const std::vector<std::vector<Action>>& ranks) {
  std::string text;
  for (const auto& actions : ranks) {
    bool first = true;
    for (const Action& action : actions) {
      if (!is_known_to_torch(action.kind)) continue;
      if (!first) text += ',';
      text += to_string(action);
      first = false;
    }
    text += '\n';
  }
  return text;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string place(const std::string& file, std::size_t line, std::size_t cell) {
  return fmt::format("{}: line {}, cell {}", file, line, cell);
}

Action parse_cell(std::string_view cell, const std::string& where) {
  if (cell.find("OVERLAP_F_B") != std::string_view::npos) {
    throw bad_input(
        "{}: '{}' overlaps a forward with a backward, which our executors cannot; list both one after the "
        "other",
        where, printable(cell));
  }
  const auto action = parse_action(cell);
  if (!action) {
    throw bad_input(
        "{}: expected an action such as 2F0 (stage 2, forward, micro-batch 0; letters F, B, I, W), got '{}'", where,
        printable(cell));
  }
  if (!is_compute(action->kind)) {
    throw bad_input("{}: '{}' is communication; expected torch's compute_only format with F, B, I and W alone", where,
                    printable(cell));
  }
  return *action;
}

// Takes the text up to `separator` off the front.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

}  // namespace

std::string to_torch_csv(const ComputeSchedule& schedule) { return to_csv(schedule.ranks); }

std::string to_torch_csv(const LoweredSchedule& schedule) {
  LoweredSchedule with_sums = schedule;
  // torch scales and sums gradients at REDUCE_GRAD, also where there are no replicas.
  for (auto& actions : with_sums.ranks) {
    std::vector<Action> missing;
    for (const Action& action : actions) {
      if (action.kind != ActionKind::optimizer_step) continue;
      const Action sum{ActionKind::reduce_grad, action.stage, MicrobatchId{-1}};
      if (std::find(actions.begin(), actions.end(), sum) == actions.end()) missing.push_back(sum);
    }
    for (const Action& sum : missing) {
      const auto last = std::find_if(actions.rbegin(), actions.rend(), [&](const Action& action) {
        return action.stage == sum.stage && action.kind != ActionKind::optimizer_step;
      });
      actions.insert(last.base(), sum);
    }
  }
  return to_csv(with_sums.ranks);
}

ComputeSchedule from_torch_csv(std::string_view text, const std::string& file) {
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  const auto commas = static_cast<std::size_t>(std::count(text.begin(), text.end(), ','));
  if (text.empty()) throw bad_input("{}: expected a line a rank, got an empty file", file);
  if (lines > max_ranks) throw bad_input("{}: expected at most {} lines (ranks), got {}", file, max_ranks, lines);
  if (commas + lines > max_cells)
    throw bad_input("{}: expected at most {} cells, got {}", file, max_cells, commas + lines);

  ComputeSchedule schedule{"custom", 0, 0, {}};
  for (std::size_t line = 1; !text.empty(); ++line) {
    std::string_view row = take_until(text, '\n');
    if (!row.empty() && row.back() == '\r') row.remove_suffix(1);
    if (trimmed(row).empty()) {
      throw bad_input("{}: line {}: expected the actions of a rank, got a blank line (torch takes it for a rank)", file,
                      line);
    }
    auto& actions = schedule.ranks.emplace_back();
    bool more = true;
    for (std::size_t number = 1; more; ++number) {
      more = row.find(',') != std::string_view::npos;
      const std::string_view cell = trimmed(take_until(row, ','));
      if (cell.empty()) continue;  // an idle slot
      const Action action = parse_cell(cell, place(file, line, number));
      actions.push_back(action);
      schedule.stages = std::max(schedule.stages, action.stage.value);
      schedule.microbatches = std::max(schedule.microbatches, action.microbatch.value);
    }
  }
  // So far the highest numbers; check() refuses counts that the actions cannot fill before it takes memory for them.
  if (std::max(schedule.stages, schedule.microbatches) > static_cast<std::int32_t>(max_cells)) {
    throw bad_input("{}: expected stages and micro-batches below {}, got {}", file, max_cells,
                    std::max(schedule.stages, schedule.microbatches));
  }
  ++schedule.stages;
  ++schedule.microbatches;
  const auto faults = check(schedule);
  if (!faults.empty()) throw bad_input("{}: {}\n{}", file, faults.front().message, format_grid(schedule, faults));
  return schedule;
}

}  // namespace stagecraft
