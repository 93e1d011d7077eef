#include "reports/comparison.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "models/error.hpp"
#include "models/statistics.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr int few_steps = 5;
constexpr double wide_spread = 0.10;  // of the median, 10th to 90th percentile

bool is_simulation(const Trace& trace) { return trace.source == "timeline" || trace.source == "simgrid"; }

// What one rung says: values by row.
struct RowKey {
  Figure figure = Figure::step_time;
  std::int32_t index = 0;  // stage or rank
  ActionKind action = ActionKind::forward;
  auto operator<=>(const RowKey&) const = default;  // the order of the rows
};

struct Value {
  double value = 0;
  std::optional<double> low, high;
};

using Column = std::map<RowKey, Value>;

std::vector<double> step_seconds(const Trace& trace) {
  std::vector<double> values;
  for (const Seconds time : trace.step_times) values.push_back(time.value());
  return values;
}

Column column_of(const Trace& trace) {
  const TraceSummary summary = summarize(trace);
  const std::vector<double> steps = step_seconds(trace);
  Column column;
  column[{Figure::step_time}] = {summary.step.value(), percentile(steps, 0.1), percentile(steps, 0.9)};
  column[{Figure::bubble}] = {summary.bubble, {}, {}};
  column[{Figure::span_bubble}] = {summary.span_bubble, {}, {}};
  for (const TraceSummary::KindTime& kind : summary.kinds) {
    // How long a rank waits in a receive is a consequence of everything else: it shows in the bubble.
    if (is_receive(kind.kind)) continue;
    column[{Figure::action, kind.stage.value, kind.kind}] = {kind.median.value(), kind.low.value(), kind.high.value()};
  }
  for (std::size_t i = 0; i < trace.peak_memory.size() && trace.ranks > 0; ++i) {
    Value& value = column[{Figure::peak_memory, static_cast<std::int32_t>(i % static_cast<std::size_t>(trace.ranks))}];
    value.value = std::max(value.value, trace.peak_memory[i].value());
  }
  return column;
}

// The costs that every prediction is composed of, and the closed form's step.
Column column_of(const Plan& plan) {
  Column column;
  if (plan.prediction.closed_form_step) column[{Figure::step_time}].value = plan.prediction.closed_form_step->value();
  if (!is_priced(plan)) return column;
  const auto put = [&](std::size_t stage, ActionKind kind, Seconds time) {
    column[{Figure::action, static_cast<std::int32_t>(stage), kind}].value = time.value();
  };
  std::set<ActionKind> kinds;
  for (const auto& rank : plan.schedule.ranks) {
    for (const Action& action : rank) kinds.insert(action.kind);
  }
  const auto message = [&](std::size_t from, std::size_t to, Bytes bytes) {
    const auto rank_of = [&](std::size_t stage) { return static_cast<std::size_t>(plan.stages[stage].rank.value); };
    return plan.cluster.path(plan.devices[0][rank_of(from)], plan.devices[0][rank_of(to)]).transfer_time(bytes);
  };
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    const StageCost& cost = plan.stages[stage].cost;
    put(stage, ActionKind::forward, cost.forward);
    if (kinds.count(ActionKind::backward) > 0) {
      put(stage, ActionKind::backward, cost.backward());
    }
    if (kinds.count(ActionKind::backward_input) > 0) put(stage, ActionKind::backward_input, cost.backward_input);
    if (kinds.count(ActionKind::backward_weight) > 0) put(stage, ActionKind::backward_weight, cost.backward_weight);
    put(stage, ActionKind::optimizer_step, cost.optimizer);
    if (stage + 1 < plan.stages.size() && plan.stages[stage].rank != plan.stages[stage + 1].rank) {
      put(stage, ActionKind::send_forward, message(stage, stage + 1, cost.boundary));
      put(stage + 1, ActionKind::send_backward, message(stage + 1, stage, cost.boundary));
    }
  }
  for (std::size_t rank = 0; rank < plan.prediction.peak_memory.size(); ++rank) {
    column[{Figure::peak_memory, static_cast<std::int32_t>(rank)}].value = plan.prediction.peak_memory[rank].value();
  }
  return column;
}

std::string row_name(const RowKey& key) {
  switch (key.figure) {
    case Figure::step_time:
      return "step time";
    case Figure::bubble:
      return "bubble, idle/total";
    case Figure::span_bubble:
      return "bubble, zb span";
    case Figure::action:
      return fmt::format("stage {} {}", key.index, letters(key.action));
    case Figure::peak_memory:
      return fmt::format("peak mem., rank {}", key.index);
  }
  return {};
}

std::optional<double> error_of(Figure figure, const std::optional<double>& predicted,
                               const std::optional<double>& measured) {
  if (!predicted || !measured) return std::nullopt;
  if (is_share(figure)) return 100 * (*predicted - *measured);
  if (*measured == 0) return std::nullopt;
  return 100 * (*predicted - *measured) / *measured;
}

void fill_errors(ComparisonRow& row) {
  row.error.clear();
  for (const auto& value : row.predicted) row.error.push_back(error_of(row.figure, value, row.measured));
}

ComparisonRow make_row(const RowKey& key, const std::vector<Column>& predicted, const Column& measured) {
  ComparisonRow row;
  row.figure = key.figure;
  row.name = row_name(key);
  row.stage = StageId{key.index};
  row.rank = RankId{key.index};
  row.action = key.action;
  for (const Column& column : predicted) {
    const auto found = column.find(key);
    row.predicted.push_back(found == column.end() ? std::nullopt : std::optional(found->second.value));
  }
  if (const auto found = measured.find(key); found != measured.end()) {
    row.measured = found->second.value;
    row.measured_low = found->second.low;
    row.measured_high = found->second.high;
  }
  fill_errors(row);
  return row;
}

RungError error_of_rung(const std::vector<ComparisonRow>& rows, std::size_t rung) {
  RungError error;
  std::vector<double> sizes;
  for (const ComparisonRow& row : rows) {
    if (is_share(row.figure) || !row.error[rung]) continue;
    if (row.figure == Figure::step_time) error.step_pct = row.error[rung];
    const double size = std::abs(*row.error[rung]);
    if (!error.worst_pct || size > *error.worst_pct) error.worst_pct = size, error.worst_row = row.name;
    sizes.push_back(size);
  }
  if (!sizes.empty()) error.median_pct = median(sizes);
  return error;
}

std::string shape_text(int stages, int microbatches, int ranks, int replicas) {
  return fmt::format("{}, {}, {}, {}", counted(stages, "stage"), counted(microbatches, "micro-batch"),
                     counted(ranks, "rank"), counted(replicas, "replica"));
}

std::string shape_of(const Trace& trace) {
  return shape_text(trace.stages, trace.microbatches, trace.ranks, trace.replicas);
}

// What a rung is of.
struct Origin {
  std::string name;  // its file, else "the plan", "timeline" or "measured"
  std::string shape, network, schedule, plan_digest;
};

Origin origin_of(const Trace& trace, const std::string& name) {
  return {name, shape_of(trace), trace.network, trace.schedule, trace.plan_digest};
}

Origin origin_of(const Plan& plan, const ComparisonFiles& files) {
  return {files.plan.empty() ? "the plan" : files.plan,
          shape_text(static_cast<int>(plan.stages.size()), plan.schedule.microbatches, plan.ranks(), plan.replicas()),
          plan.network.name, plan.schedule.name, files.plan_digest};
}

// By rung.
std::vector<Origin> origins_of(const Comparison& comparison, const Plan* plan, std::span<const Trace> predicted,
                               const ComparisonFiles& files) {
  std::vector<Origin> origins;
  if (plan != nullptr) origins.push_back(origin_of(*plan, files));
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    origins.push_back(
        origin_of(predicted[i], files.predicted.empty() ? comparison.rungs[origins.size()] : files.predicted[i]));
  }
  return origins;
}

void warn_about_difference(const Origin& a, const Origin& b, std::vector<std::string>& warnings) {
  const auto differs = [&](std::string_view what, const std::string& of_a, const std::string& of_b) {
    const bool unlike = !of_a.empty() && !of_b.empty() && of_a != of_b;
    if (unlike) {
      warnings.push_back(fmt::format("not the same {}: {} has {}; {} {}", what, a.name, of_a, b.name, of_b));
    }
    return unlike;
  };
  const bool other_network = differs("network", a.network, b.network);
  const bool other_pipeline = differs("pipeline", a.shape, b.shape);
  if (!other_network && !other_pipeline) differs("plan", a.plan_digest, b.plan_digest);
  differs("schedule", a.schedule, b.schedule);
}

void warn_about_measurement(const Trace& measured, std::vector<std::string>& warnings) {
  if (is_simulation(measured)) {
    warnings.push_back(fmt::format("the trace to compare against is itself a simulation ({})", measured.source));
    return;
  }
  const std::vector<double> steps = step_seconds(measured);
  if (steps.size() < few_steps) {
    const std::string count = counted(static_cast<long long>(steps.size()), "measured step");
    warnings.push_back(fmt::format("only {}: the medians are weak", count));
  }
  const double middle = median(steps);
  const double spread = percentile(steps, 0.9) - percentile(steps, 0.1);
  if (middle > 0 && spread > wide_spread * middle) {
    warnings.push_back(fmt::format("measured step times spread over {:.0f} % of their median (10th to 90th percentile)",
                                   100 * spread / middle));
  }
}

// Two traces of one engine must stay apart.
std::string unique_rung(const std::vector<std::string>& rungs, const std::string& source) {
  std::string name = printable(source, 14);
  for (int i = 2; std::find(rungs.begin(), rungs.end(), name) != rungs.end(); ++i) {
    name = fmt::format("{} #{}", printable(source, 14), i);
  }
  return name;
}

// The columns of the predictions, their names and their own warnings.
// A group of devices counts as one in plan and traces: each of them holds an equal part.
void share_out_memory(const Plan& plan, std::vector<Column>& columns) {
  for (Column& column : columns) {
    for (auto& [key, value] : column) {
      if (key.figure != Figure::peak_memory || key.index >= plan.ranks()) continue;
      value.value /= plan.cluster.type_of(plan.devices.front()[static_cast<std::size_t>(key.index)]).group;
    }
  }
}

std::vector<Column> add_rungs(Comparison& comparison, const Plan* plan, std::span<const Trace> predicted,
                              const ComparisonFiles& files) {
  std::vector<Column> columns;
  if (plan != nullptr) {
    comparison.rungs.emplace_back("closed form");
    columns.push_back(column_of(*plan));
  }
  for (const Trace& trace : predicted) {
    require_complete(trace);
    comparison.rungs.push_back(unique_rung(comparison.rungs, trace.source));
    columns.push_back(column_of(trace));
    for (const std::string& warning : trace.warnings) {
      comparison.warnings.push_back(comparison.rungs.back() + ": " + warning);
    }
  }
  if (plan != nullptr) share_out_memory(*plan, columns);
  const bool has_twins = std::any_of(comparison.rungs.begin(), comparison.rungs.end(),
                                     [](const std::string& name) { return name.find(" #") != std::string::npos; });
  if (has_twins && !files.predicted.empty()) {
    if (plan != nullptr) comparison.files.push_back(files.plan);
    comparison.files.insert(comparison.files.end(), files.predicted.begin(), files.predicted.end());
  }
  return columns;
}

void fill_rows(Comparison& comparison, const std::vector<Column>& predicted, const Column& measured) {
  std::set<RowKey> keys;
  for (const auto& [key, value] : measured) keys.insert(key);
  for (const Column& column : predicted) {
    for (const auto& [key, value] : column) keys.insert(key);
  }
  for (const RowKey& key : keys) comparison.rows.push_back(make_row(key, predicted, measured));
  for (std::size_t rung = 0; rung < predicted.size(); ++rung) {
    comparison.errors.push_back(error_of_rung(comparison.rows, rung));
  }
}

}  // namespace

void require_complete(const Trace& trace) {
  if (trace.events.empty()) throw bad_input("the {} trace has no events", printable(trace.source));
  if (trace.step_times.empty()) throw bad_input("the {} trace has no step times", printable(trace.source));
}

Comparison tabulate(const Plan* plan, std::span<const Trace> predicted, const ComparisonFiles& files) {
  Comparison comparison;
  if (plan != nullptr) {
    comparison.network = plan->network.name;
    comparison.schedule = plan->schedule.name;
  } else if (!predicted.empty()) {
    comparison.network = predicted.back().network;
    comparison.schedule = predicted.back().schedule;
  }
  const std::vector<Column> columns = add_rungs(comparison, plan, predicted, files);
  const std::vector<Origin> origins = origins_of(comparison, plan, predicted, files);
  for (std::size_t rung = 1; rung < origins.size(); ++rung) {
    warn_about_difference(origins.front(), origins[rung], comparison.warnings);
  }
  fill_rows(comparison, columns, {});
  return comparison;
}

Comparison compare(const Plan* plan, std::span<const Trace> predicted, const Trace& measured,
                   const ComparisonFiles& files) {
  require_complete(measured);
  Comparison comparison;
  comparison.measured = measured.source;
  comparison.machine = measured.machine;
  comparison.date = measured.date;
  comparison.network = measured.network;
  comparison.schedule = measured.schedule;
  comparison.steps = static_cast<int>(measured.step_times.size());
  warn_about_measurement(measured, comparison.warnings);
  const std::vector<Column> columns = add_rungs(comparison, plan, predicted, files);
  const Origin truth = origin_of(measured, files.measured.empty() ? "measured" : files.measured);
  for (const Origin& origin : origins_of(comparison, plan, predicted, files)) {
    warn_about_difference(origin, truth, comparison.warnings);
  }
  for (const std::string& warning : measured.warnings) comparison.warnings.push_back("measured: " + warning);
  fill_rows(comparison, columns, column_of(measured));
  return comparison;
}

bool Comparison::exceeds(double percent) const {
  if (errors.empty() || !errors.back().step_pct) return true;
  return !(std::abs(*errors.back().step_pct) <= percent);
}

Comparison condensed(const Comparison& comparison, int limit) {
  const auto count = [&](Figure figure) {
    std::set<int> indices;
    for (const ComparisonRow& row : comparison.rows) {
      if (row.figure == figure) indices.insert(figure == Figure::action ? row.stage.value : row.rank.value);
    }
    return static_cast<int>(indices.size());
  };
  const auto fold = [&](Figure figure, const std::vector<const ComparisonRow*>& rows, const std::string& name) {
    const auto folded = [&](auto&& value_of) -> std::optional<double> {
      std::vector<double> values;
      for (const ComparisonRow* row : rows) {
        if (const auto value = value_of(*row)) values.push_back(*value);
      }
      if (values.empty()) return std::nullopt;
      return percentile(values, figure == Figure::peak_memory ? 1.0 : 0.5);
    };
    ComparisonRow result = *rows.front();
    result.name = name;
    result.stage = StageId{};
    result.rank = RankId{};
    for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung) {
      result.predicted[rung] = folded([&](const ComparisonRow& row) { return row.predicted[rung]; });
    }
    result.measured = folded([](const ComparisonRow& row) { return row.measured; });
    result.measured_low = folded([](const ComparisonRow& row) { return row.measured_low; });
    result.measured_high = folded([](const ComparisonRow& row) { return row.measured_high; });
    fill_errors(result);
    return result;
  };
  const int stages = count(Figure::action), ranks = count(Figure::peak_memory);
  Comparison result = comparison;
  result.rows.clear();
  std::map<ActionKind, std::vector<const ComparisonRow*>> actions;
  std::vector<const ComparisonRow*> memory;
  for (const ComparisonRow& row : comparison.rows) {
    if (row.figure == Figure::action && stages > limit) {
      actions[row.action].push_back(&row);
    } else if (row.figure == Figure::peak_memory && ranks > limit) {
      memory.push_back(&row);
    } else {
      result.rows.push_back(row);
    }
  }
  for (const auto& [kind, rows] : actions) {
    result.rows.push_back(fold(Figure::action, rows, fmt::format("{}, {} stages", letters(kind), rows.size())));
  }
  if (!memory.empty()) {
    result.rows.push_back(fold(Figure::peak_memory, memory, fmt::format("peak mem., {} ranks", memory.size())));
  }
  std::stable_sort(result.rows.begin(), result.rows.end(),
                   [](const ComparisonRow& a, const ComparisonRow& b) { return a.figure < b.figure; });
  return result;
}

}  // namespace stagecraft
