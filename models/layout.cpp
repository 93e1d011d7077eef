#include "models/layout.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "models/recomputed_layers.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::pair<std::string_view, PipelineSchedule> schedules[] = {
    {"gpipe", PipelineSchedule::gpipe},
    {"1f1b", PipelineSchedule::one_f_one_b},
    {"eager-1f1b", PipelineSchedule::eager_one_f_one_b},
    {"interleaved-1f1b", PipelineSchedule::interleaved_one_f_one_b},
    {"looped-bfs", PipelineSchedule::looped_bfs},
    {"zb-h1", PipelineSchedule::zb_h1},
    {"zb-h2", PipelineSchedule::zb_h2},
    {"interleaved-zero-bubble", PipelineSchedule::interleaved_zero_bubble},
    {"zb-1p", PipelineSchedule::zb_1p},
    {"zb-2p", PipelineSchedule::zb_2p},
    {"zb-v", PipelineSchedule::zb_v},
    {"v-half", PipelineSchedule::v_half},
    {"v-min", PipelineSchedule::v_min},
    {"chimera", PipelineSchedule::chimera},
    {"dualpipe", PipelineSchedule::dualpipe},
    {"dualpipe-v", PipelineSchedule::dualpipe_v},
    {"hanayo", PipelineSchedule::hanayo},
    {"bitpipe", PipelineSchedule::bitpipe},
    {"seq-1f1b", PipelineSchedule::seq_one_f_one_b},
    {"zb-v-auto", PipelineSchedule::zb_v_auto},
    {"interleaved-1f1b-torch", PipelineSchedule::interleaved_one_f_one_b_torch},
    {"searched", PipelineSchedule::searched}};

struct NumberField {
  std::string_view letter;  // in the text form
  std::string_view key;     // in JSON
  std::int32_t ParallelLayout::*member;
  std::int32_t least;
  std::int32_t standard;
};
constexpr NumberField numbers[] = {{"p", "pipeline", &ParallelLayout::pipeline, 1, 1},
                                   {"v", "virtual_stages", &ParallelLayout::virtual_stages, 1, 1},
                                   {"t", "tensor", &ParallelLayout::tensor, 1, 1},
                                   {"c", "context", &ParallelLayout::context, 1, 1},
                                   {"d", "data", &ParallelLayout::data, 1, 1},
                                   {"e", "expert", &ParallelLayout::expert, 1, 1},
                                   {"b", "microbatch", &ParallelLayout::microbatch, 1, 1},
                                   {"m", "microbatches", &ParallelLayout::microbatches, 1, 1},
                                   {"first=", "first_stage_layers", &ParallelLayout::first_stage_layers, no_layers, 0},
                                   {"last=", "last_stage_layers", &ParallelLayout::last_stage_layers, no_layers, 0}};

struct Flag {
  std::string_view name;  // in the text form, behind "offload=" or "overlap="
  std::string_view key;
  bool ParallelLayout::*member;
};
constexpr Flag offloads[] = {{"optimizer", "offload_optimizer", &ParallelLayout::offload_optimizer},
                             {"activations", "offload_activations", &ParallelLayout::offload_activations}};
constexpr Flag overlaps[] = {{"gradients", "overlap_gradients", &ParallelLayout::overlap_gradients},
                             {"parameters", "overlap_parameters", &ParallelLayout::overlap_parameters},
                             {"tensor", "overlap_tensor", &ParallelLayout::overlap_tensor},
                             {"pipeline", "overlap_pipeline", &ParallelLayout::overlap_pipeline}};

// Of recomputed_layers.
constexpr std::pair<std::string_view, std::int32_t> layer_word_list[] = {{"fewest", fewest_layers},
                                                                         {"listed", listed_layers}};
constexpr std::span<const std::pair<std::string_view, std::int32_t>> layer_words(layer_word_list);

constexpr std::string_view dimension_letters = "tcdp";  // by Dimension

std::optional<std::int32_t> parse_number(std::string_view text, std::int32_t least) {
  std::int32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least) return std::nullopt;
  return number;
}

template <class Value>
std::optional<Value> find(std::span<const std::pair<std::string_view, Value>> names, std::string_view text) {
  for (const auto& [name, value] : names) {
    if (name == text) return value;
  }
  return std::nullopt;
}

// "3", "fewest", "listed"
std::string layers_text(std::int32_t layers) {
  for (const auto& [word, value] : layer_words) {
    if (value == layers) return std::string(word);
  }
  return std::to_string(layers);
}

std::string flags_text(std::string_view prefix, std::span<const Flag> flags, const ParallelLayout& layout) {
  std::vector<std::string> set;
  for (const Flag& flag : flags) {
    if (layout.*flag.member) set.emplace_back(flag.name);
  }
  return set.empty() ? "" : fmt::format(" {}={}", prefix, join(set, ","));
}

bool parse_flags(std::string_view list, std::span<const Flag> flags, ParallelLayout& layout) {
  while (true) {
    const std::string_view word = list.substr(0, list.find(','));
    const auto flag = std::find_if(flags.begin(), flags.end(), [&](const Flag& f) { return f.name == word; });
    if (flag == flags.end()) return false;
    layout.*flag->member = true;
    if (word.size() == list.size()) return true;
    list.remove_prefix(word.size() + 1);
  }
}

bool parse_recompute(std::string_view word, ParallelLayout& layout) {
  const auto colon = word.find(':');
  const auto mode = find(recompute_names(), word.substr(0, colon));
  if (!mode) return false;
  layout.recompute = *mode;
  if (colon == std::string_view::npos) return true;
  auto layers = find(layer_words, word.substr(colon + 1));
  if (!layers) layers = parse_number(word.substr(colon + 1), 0);
  if (layers) layout.recomputed_layers = *layers;
  return layers.has_value();
}

bool parse_word(std::string_view word, ParallelLayout& layout) {
  for (const NumberField& field : numbers) {
    if (!word.starts_with(field.letter)) continue;
    if (const auto number = parse_number(word.substr(field.letter.size()), field.least)) {
      layout.*field.member = *number;
      return true;
    }
  }
  if (word == "sp") return layout.sequence_parallel = true;
  if (const auto schedule = find(pipeline_schedule_names(), word)) return layout.schedule = *schedule, true;
  if (word.size() == 5 && word.starts_with("zero") && word[4] >= '0' && word[4] <= '3') {
    layout.zero = static_cast<std::uint8_t>(word[4] - '0');
    return true;
  }
  if (word.starts_with("offload=")) return parse_flags(word.substr(8), offloads, layout);
  if (word.starts_with("overlap=")) return parse_flags(word.substr(8), overlaps, layout);
  if (word.starts_with("order=")) {
    const auto order = parse_order(word.substr(6));
    if (order) layout.order = *order;
    return order.has_value();
  }
  return parse_recompute(word, layout);
}

}  // namespace

std::string to_string(const DimensionOrder& order) {
  std::string text;
  for (const Dimension dimension : order) text += dimension_letters[static_cast<std::size_t>(dimension)];
  return text;
}

std::optional<DimensionOrder> parse_order(std::string_view text) {
  if (text.size() != dimension_count || !std::is_permutation(text.begin(), text.end(), dimension_letters.begin())) {
    return std::nullopt;
  }
  DimensionOrder order{};
  for (std::size_t i = 0; i < text.size(); ++i) order[i] = static_cast<Dimension>(dimension_letters.find(text[i]));
  return order;
}

std::span<const std::pair<std::string_view, PipelineSchedule>> pipeline_schedule_names() { return schedules; }

std::string_view name(PipelineSchedule schedule) { return schedules[static_cast<std::size_t>(schedule)].first; }

std::string to_string(const ParallelLayout& layout) {
  std::string text;
  for (const NumberField& field : numbers) {
    if (const std::int32_t number = layout.*field.member; number != field.standard) {
      text += fmt::format("{}{} ", field.letter, number);
    }
  }
  text += name(layout.schedule);
  if (layout.sequence_parallel) text += " sp";
  if (layout.zero > 0) text += fmt::format(" zero{}", layout.zero);
  if (layout.recompute != Recompute::none || layout.recomputed_layers != all_layers) {
    text += fmt::format(" {}", name(layout.recompute));
    if (layout.recomputed_layers != all_layers) text += ":" + layers_text(layout.recomputed_layers);
  }
  text += flags_text("offload", offloads, layout) + flags_text("overlap", overlaps, layout);
  if (layout.order != megatron_order) text += " order=" + to_string(layout.order);
  return text;
}

ParallelLayout parse_layout(std::string_view text) {
  ParallelLayout layout;
  while (true) {
    const auto start = text.find_first_not_of(' ');
    if (start == std::string_view::npos) return layout;
    text.remove_prefix(start);
    const std::string_view word = text.substr(0, text.find(' '));
    if (!parse_word(word, layout)) {
      throw bad_input("layout: expected words such as 'p8 t4 d2 b1 m16 1f1b sp zero1 full', got '{}'", printable(word));
    }
    text.remove_prefix(word.size());
  }
}

std::int32_t recomputed_layers_from_json(const JsonValue& value) {
  if (value.json().is_string()) return value.one_of(layer_words);
  return static_cast<std::int32_t>(value.integer(0, all_layers - 1));
}

Json recomputed_layers_json(std::int32_t layers) { return layers < 0 ? Json(layers_text(layers)) : Json(layers); }

ParallelLayout layout_from_json(const JsonValue& value) {
  ParallelLayout layout;
  JsonObject object = value.object();
  for (const NumberField& field : numbers) {
    if (const auto number = object.optional(field.key)) {
      layout.*field.member = static_cast<std::int32_t>(number->integer(field.least, all_layers));
    }
  }
  if (const auto layers = object.optional("recomputed_layers")) {
    layout.recomputed_layers = recomputed_layers_from_json(*layers);
  }
  if (const auto schedule = object.optional("schedule")) layout.schedule = schedule->one_of(pipeline_schedule_names());
  if (const auto recompute = object.optional("recompute")) layout.recompute = recompute->one_of(recompute_names());
  if (const auto zero = object.optional("zero")) layout.zero = static_cast<std::uint8_t>(zero->integer(0, 3));
  if (const auto sharded = object.optional("sequence_parallel")) layout.sequence_parallel = sharded->boolean();
  for (const std::span<const Flag> flags : {std::span<const Flag>(offloads), std::span<const Flag>(overlaps)}) {
    for (const Flag& flag : flags) {
      if (const auto set = object.optional(flag.key)) layout.*flag.member = set->boolean();
    }
  }
  if (const auto order = object.optional("order")) {
    const auto parsed = parse_order(order->string());
    if (!parsed) throw order->expected("the letters t, c, d and p, innermost dimension first, such as \"tcdp\"");
    layout.order = *parsed;
  }
  object.finish();
  return layout;
}

Json to_json(const ParallelLayout& layout) {
  Json json;
  for (const NumberField& field : numbers) json[std::string(field.key)] = layout.*field.member;
  json["schedule"] = name(layout.schedule);
  json["recompute"] = name(layout.recompute);
  if (layout.recomputed_layers != all_layers)
    json["recomputed_layers"] = recomputed_layers_json(layout.recomputed_layers);
  json["zero"] = layout.zero;
  json["sequence_parallel"] = layout.sequence_parallel;
  for (const std::span<const Flag> flags : {std::span<const Flag>(offloads), std::span<const Flag>(overlaps)}) {
    for (const Flag& flag : flags) json[std::string(flag.key)] = layout.*flag.member;
  }
  json["order"] = to_string(layout.order);
  return json;
}

}  // namespace stagecraft
