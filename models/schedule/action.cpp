#include <array>
#include <charconv>
#include <utility>

#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

constexpr std::array<std::pair<std::string_view, ActionKind>, 13> kind_letters{
    {{"F", ActionKind::forward},
     {"B", ActionKind::backward},
     {"I", ActionKind::backward_input},
     {"W", ActionKind::backward_weight},
     {"SEND_F", ActionKind::send_forward},
     {"RECV_F", ActionKind::recv_forward},
     {"SEND_B", ActionKind::send_backward},
     {"RECV_B", ActionKind::recv_backward},
     {"UNSHARD", ActionKind::unshard},
     {"RESHARD", ActionKind::reshard},
     {"REDUCE_TIED", ActionKind::reduce_tied},
     {"REDUCE_GRAD", ActionKind::reduce_grad},
     {"STEP", ActionKind::optimizer_step}}};

// Takes a number without sign or leading zeros off the front of `text`.
std::optional<std::int32_t> take_index(std::string_view& text) {
  std::int32_t value = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto length = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || (length > 1 && text.front() == '0')) return std::nullopt;
  text.remove_prefix(length);
  return value;
}

}  // namespace

std::string_view letters(ActionKind kind) { return kind_letters[static_cast<std::size_t>(kind)].first; }

std::optional<ActionKind> parse_action_kind(std::string_view letters) {
  for (const auto& [text, kind] : kind_letters) {
    if (text == letters) return kind;
  }
  return std::nullopt;
}

std::string to_string(const Action& action) {
  std::string text = std::to_string(action.stage.value);
  text += letters(action.kind);
  const bool of_update = action.kind == ActionKind::optimizer_step && action.microbatch.value >= 0;
  if (has_microbatch(action.kind) || of_update) text += std::to_string(action.microbatch.value);
  return text;
}

std::optional<Action> parse_action(std::string_view text) {
  const auto stage = take_index(text);
  if (!stage) return std::nullopt;
  const auto digits = std::min(text.find_first_of("0123456789"), text.size());
  const auto kind = parse_action_kind(text.substr(0, digits));
  if (!kind) return std::nullopt;
  text.remove_prefix(digits);
  Action action{*kind, StageId{*stage}, MicrobatchId{-1}};
  if (has_microbatch(*kind) || (*kind == ActionKind::optimizer_step && !text.empty())) {
    const auto microbatch = take_index(text);
    if (!microbatch) return std::nullopt;
    action.microbatch = MicrobatchId{*microbatch};
  }
  return text.empty() ? std::optional(action) : std::nullopt;
}

}  // namespace stagecraft
