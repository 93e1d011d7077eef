#include "models/schedule/torch_csv.hpp"

#include <algorithm>
#include <limits>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_ranks = 4096;
constexpr std::size_t max_cells = 10'000'000;

constexpr std::string_view overlap_suffix = ")OVERLAP_F_B";

// Cells in torch's letters; false for what its files cannot say.
bool is_known_to_torch(ActionKind kind) {
  return kind != ActionKind::optimizer_step && kind != ActionKind::reduce_tied;
}
bool is_message(ActionKind kind) { return !is_compute(kind) && has_microbatch(kind); }

std::string to_csv(const std::vector<std::vector<Action>>& ranks) {
  std::string text;
  for (const auto& actions : ranks) {
    bool first = true;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (!is_known_to_torch(actions[i].kind)) continue;
      if (!first) text += ',';
      first = false;
      if (!actions[i].overlapped) {
        text += to_string(actions[i]);
        continue;
      }
      text += '(' + to_string(actions[i]) + ';' + to_string(actions[i + 1]);
      text += overlap_suffix;
      ++i;
    }
    text += '\n';
  }
  return text;
}

// The first stage that is on two ranks, as a complaint; empty when none is.
std::string shared_stage(const std::vector<std::vector<Action>>& ranks, int stages) {
  std::vector<int> owner(static_cast<std::size_t>(stages), -1);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const Action& action : ranks[rank]) {
      int& known = owner[static_cast<std::size_t>(action.stage.value)];
      if (known >= 0 && known != static_cast<int>(rank)) {
        return fmt::format("stage {} is on ranks {} and {}; torch's files have one rank a stage", action.stage.value,
                           known, rank);
      }
      known = static_cast<int>(rank);
    }
  }
  return "";
}

std::string why_not(const ComputeSchedule& schedule) {
  if (schedule.forward_only) return "has forwards alone; torch's files have a backward for each";
  if (schedule.slices > 1) return "cuts micro-batches into token slices, which torch's files do not";
  if (schedule.updates != WeightUpdates::synchronous) {
    return "changes weights while micro-batches are in flight; torch's files have one step, at the end";
  }
  return shared_stage(schedule.ranks, schedule.stages);
}

void refuse(const std::string& schedule, const std::string& reason) {
  if (!reason.empty()) throw bad_input("schedule '{}' cannot be a file of torch's: {}", schedule, reason);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string place(const std::string& file, std::size_t line, std::size_t cell) {
  return fmt::format("{}: line {}, cell {}", file, line, cell);
}

Action parse_plain(std::string_view text, std::string_view cell, const std::string& where) {
  const auto action = parse_action(trimmed(text));
  if (!action || !is_known_to_torch(action->kind)) {
    throw bad_input(
        "{}: expected an action such as 2F0 (stage 2, forward, micro-batch 0; letters F, B, I, W, SEND_F, ...) or "
        "(2F1;2B0)OVERLAP_F_B, got '{}'",
        where, printable(cell));
  }
  return *action;
}

// One action, or the two of an overlapped pair.
void parse_cell(std::string_view cell, const std::string& where, std::vector<Action>& actions) {
  if (!cell.starts_with('(') || !cell.ends_with(overlap_suffix)) {
    actions.push_back(parse_plain(cell, cell, where));
    return;
  }
  const std::string_view pair = cell.substr(1, cell.size() - 1 - overlap_suffix.size());
  const std::size_t middle = pair.find(';');
  Action forward = parse_plain(pair.substr(0, middle), cell, where);
  const Action backward = parse_plain(middle == std::string_view::npos ? "" : pair.substr(middle + 1), cell, where);
  if (forward.kind != ActionKind::forward || backward.kind != ActionKind::backward) {
    throw bad_input("{}: expected an F and then a B in an overlapped pair, got '{}'", where, printable(cell));
  }
  forward.overlapped = true;
  actions.push_back(forward);
  actions.push_back(backward);
}

// Takes the text up to `separator` off the front.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

// Every cell as it is; counts of stages and micro-batches from the highest numbers.
LoweredSchedule parse(std::string_view text, const std::string& file) {
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  const auto commas = static_cast<std::size_t>(std::count(text.begin(), text.end(), ','));
  if (text.empty()) throw bad_input("{}: expected a line a rank, got an empty file", file);
  if (lines > max_ranks) throw bad_input("{}: expected at most {} lines (ranks), got {}", file, max_ranks, lines);
  if (commas + lines > max_cells)
    throw bad_input("{}: expected at most {} cells, got {}", file, max_cells, commas + lines);

  LoweredSchedule schedule{"custom", 0, 0, {}};
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
      if (!cell.empty()) parse_cell(cell, place(file, line, number), actions);  // else an idle slot
    }
    for (const Action& action : actions) {
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
  return schedule;
}

}  // namespace

std::string to_torch_csv(const ComputeSchedule& schedule, TorchFormat format) {
  refuse(schedule.name, why_not(schedule));
  if (format == TorchFormat::compute_only) return to_csv(schedule.ranks);
  return to_csv(lower(schedule, {.data_parallel = true}, Receives::as_sent).ranks);
}

std::string to_torch_csv(const LoweredSchedule& schedule) {
  refuse(schedule.name, shared_stage(schedule.ranks, schedule.stages));
  LoweredSchedule with_sums = schedule;
  // torch scales and sums gradients at REDUCE_GRAD, also where there are no replicas.
  for (auto& actions : with_sums.ranks) {
    std::vector<Action> missing;
    for (const Action& action : actions) {
      if (action.kind != ActionKind::optimizer_step) continue;
      const bool is_update = action.microbatch.value >= 0;
      refuse(schedule.name, is_update ? "changes weights while micro-batches are in flight" : "");
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

TorchSchedule read_torch_csv(std::string_view text, const std::string& file) {
  LoweredSchedule lowered = parse(text, file);
  ComputeSchedule computes{lowered.name, lowered.stages, lowered.microbatches, {}};
  bool has_messages = false;
  for (const auto& actions : lowered.ranks) {
    auto& own = computes.ranks.emplace_back();
    for (const Action& action : actions) {
      if (is_compute(action.kind)) own.push_back(action);
      has_messages = has_messages || is_message(action.kind);
    }
  }
  auto faults = check(computes);
  if (!faults.empty()) throw bad_input("{}: {}\n{}", file, faults.front().message, format_grid(computes, faults));
  if (const std::string shared = shared_stage(computes.ranks, computes.stages); !shared.empty()) {
    throw bad_input("{}: {}", file, shared);
  }
  if (!has_messages) return {std::move(computes), std::nullopt};
  const Placement placement(computes);
  for (std::int32_t s = 0; s < computes.stages; ++s) {
    const auto rank = static_cast<std::size_t>(placement.ranks(StageId{s}).front().value);
    lowered.ranks[rank].push_back({ActionKind::optimizer_step, StageId{s}, MicrobatchId{-1}});
  }
  faults = check(lowered, std::numeric_limits<int>::max());
  if (!faults.empty()) throw bad_input("{}: {}", file, faults.front().message);
  return {std::move(computes), std::move(lowered)};
}

ComputeSchedule from_torch_csv(std::string_view text, const std::string& file) {
  return read_torch_csv(text, file).computes;
}

}  // namespace stagecraft
