// The comparison as text, Markdown and JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/text.hpp"
#include "reports/comparison.hpp"
#include "reports/markdown.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Rungs [first, last), each with its error, and the measured values.
Rows table_rows(const Comparison& comparison, std::size_t first, std::size_t last) {
  const bool measured = !comparison.measured.empty();
  Rows rows{{""}};
  for (std::size_t rung = first; rung < last; ++rung) {
    rows[0].push_back(comparison.rungs[rung]);
    if (measured) rows[0].push_back("error");
  }
  if (measured) rows[0].push_back("measured");
  for (const ComparisonRow& row : comparison.rows) {
    std::vector<std::string> cells{row.name};
    for (std::size_t rung = first; rung < last; ++rung) {
      cells.push_back(format_value(row.figure, row.predicted[rung]));
      if (measured) cells.push_back(format_error(row.figure, row.error[rung]));
    }
    if (measured) cells.push_back(format_value(row.figure, row.measured));
    rows.push_back(std::move(cells));
  }
  return rows;
}

std::string rung_summary(const Comparison& comparison, std::size_t rung) {
  const RungError& error = comparison.errors[rung];
  if (!error.worst_pct) return comparison.rungs[rung] + ": nothing to compare";
  return fmt::format("{}: step time {}, median error {:.1f} %, worst {:.1f} % ({})", comparison.rungs[rung],
                     format_error(Figure::step_time, error.step_pct), *error.median_pct, *error.worst_pct,
                     error.worst_row);
}

std::string context_line(const Comparison& comparison) {
  std::string line = comparison.measured.empty() ? "predicted"
                                                 : fmt::format("measured: {}, {}", printable(comparison.measured, 20),
                                                               counted(comparison.steps, "step"));
  for (const std::string* part : {&comparison.machine, &comparison.date, &comparison.network, &comparison.schedule}) {
    if (!part->empty()) line += ", " + printable(*part, 80);
  }
  return line;
}

// "timeline: a.json, timeline #2: b.json"; empty where no file is named.
std::string files_line(const Comparison& comparison) {
  std::vector<std::string> named;
  for (std::size_t rung = 0; rung < comparison.files.size(); ++rung) {
    named.push_back(comparison.rungs[rung] + ": " + printable(comparison.files[rung], 80));
  }
  return join(named);
}

void put(Json& object, const std::string& rung, const std::optional<double>& value) {
  object[rung] = value ? Json(*value) : Json(nullptr);
}

// {"timeline": 1.0, "measured": 2.0}
Json values_json(const Comparison& comparison, const ComparisonRow& row) {
  Json json = Json::object();
  for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung)
    put(json, comparison.rungs[rung], row.predicted[rung]);
  put(json, "measured", row.measured);
  return json;
}

Json errors_json(const Comparison& comparison, const ComparisonRow& row) {
  Json json = Json::object();
  for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung) put(json, comparison.rungs[rung], row.error[rung]);
  return json;
}

void put_spread(Json& json, const ComparisonRow& row) {
  if (row.measured_low) json["measured_p10_s"] = *row.measured_low;
  if (row.measured_high) json["measured_p90_s"] = *row.measured_high;
}

void put_row(Json& json, const Comparison& comparison, const ComparisonRow& row) {
  switch (row.figure) {
    case Figure::step_time:
      json["step_time_s"] = values_json(comparison, row);
      json["step_time_error_pct"] = errors_json(comparison, row);
      put_spread(json["step_time_spread"], row);
      break;
    case Figure::bubble:
      json["bubble_idle_over_total"] = values_json(comparison, row);
      json["bubble_idle_over_total_error_points"] = errors_json(comparison, row);
      break;
    case Figure::span_bubble:
      json["bubble_zero_bubble_span"] = values_json(comparison, row);
      json["bubble_zero_bubble_span_error_points"] = errors_json(comparison, row);
      break;
    case Figure::action: {
      Json action;
      action["stage"] = row.stage.value;
      action["action"] = letters(row.action);
      action["time_s"] = values_json(comparison, row);
      action["error_pct"] = errors_json(comparison, row);
      put_spread(action, row);
      json["actions"].push_back(std::move(action));
      break;
    }
    case Figure::peak_memory: {
      Json rank;
      rank["rank"] = row.rank.value;
      rank["bytes"] = values_json(comparison, row);
      rank["error_pct"] = errors_json(comparison, row);
      json["peak_memory_bytes"].push_back(std::move(rank));
      break;
    }
  }
}

}  // namespace

std::string format_value(Figure figure, const std::optional<double>& value) {
  if (!value) return "-";
  if (is_share(figure)) return fmt::format("{:.1f} %", 100 * *value);
  return figure == Figure::peak_memory ? to_string(Bytes(*value)) : to_string(Seconds(*value));
}

std::string format_error(Figure figure, const std::optional<double>& error) {
  if (!error) return "-";
  const double shown = *error > -0.05 && *error < 0.05 ? 0.0 : *error;  // no "-0.0"
  if (is_share(figure)) return fmt::format("{:+.1f} pp", shown);
  return shown >= 999.5 ? fmt::format("{:+.0f} %", shown) : fmt::format("{:+.1f} %", shown);
}

std::string to_text(const Comparison& comparison) {
  const Comparison shown = condensed(comparison);
  std::string out = wrap(context_line(shown));
  if (!shown.files.empty()) out += wrap(files_line(shown));
  out += "\n";
  const std::size_t rungs = shown.rungs.size();
  for (std::size_t first = 0; first < rungs || first == 0;) {
    std::size_t last = rungs;
    std::string table = format_table(table_rows(shown, first, last));
    while (longest_line(table) > max_columns && last > first + 1) {
      table = format_table(table_rows(shown, first, --last));
    }
    out += (first == 0 ? "" : "\n") + table;
    if (last == rungs) break;
    first = last;
  }
  out += "\n";
  for (std::size_t rung = 0; rung < rungs && !shown.measured.empty(); ++rung) out += wrap(rung_summary(shown, rung));
  for (const std::string& warning : shown.warnings) out += wrap("warning: " + printable(warning, 400));
  return out;
}

std::string to_markdown(const Comparison& comparison) {
  const Comparison shown = condensed(comparison);
  std::string out = markdown_text(context_line(shown)) + "\n\n";
  if (!shown.files.empty()) out += markdown_text(files_line(shown)) + "\n\n";
  out += markdown_table(table_rows(shown, 0, shown.rungs.size()));
  out += "\n";
  for (std::size_t rung = 0; rung < shown.rungs.size() && !shown.measured.empty(); ++rung) {
    out += "- " + markdown_text(rung_summary(shown, rung)) + "\n";
  }
  for (const std::string& warning : shown.warnings) {
    out += "- **warning:** " + markdown_text(warning) + "\n";
  }
  return out;
}

Json to_json(const Comparison& comparison) {
  Json json;
  json["measured"] = nullptr;
  if (!comparison.measured.empty()) {
    json["measured"] = {{"source", comparison.measured},
                        {"machine", comparison.machine},
                        {"date", comparison.date},
                        {"steps", comparison.steps}};
  }
  json["network"] = comparison.network;
  json["schedule"] = comparison.schedule;
  json["rungs"] = comparison.rungs;
  for (std::size_t rung = 0; rung < comparison.files.size(); ++rung) {
    json["files"][comparison.rungs[rung]] = comparison.files[rung];
  }
  for (const ComparisonRow& row : comparison.rows) put_row(json, comparison, row);
  json["errors"] = Json::object();
  for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung) {
    const RungError& error = comparison.errors[rung];
    Json& entry = json["errors"][comparison.rungs[rung]];
    put(entry, "step_time_error_pct", error.step_pct);
    put(entry, "median_error_pct", error.median_pct);
    put(entry, "worst_error_pct", error.worst_pct);
    entry["worst"] = error.worst_row;
  }
  json["warnings"] = comparison.warnings;
  return json;
}

}  // namespace stagecraft
