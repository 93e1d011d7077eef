#include "cli/advice_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/text.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr double seconds_an_hour = 3600;

}  // namespace

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string change(std::optional<double> step, double from) {
  return step ? fmt::format("{:+.1f} %", 100 * (*step / from - 1)) : "no fit";
}

std::string cost_text(double dollars) {
  if (!(dollars > 0)) return "-";
  return dollars < 100 ? fmt::format("{:#.3g}", dollars) : rounded_with_thousands(dollars);
}

double step_cost(double price, Seconds step) { return price * step.value() / seconds_an_hour; }

std::string devices_text(std::int64_t used, std::int64_t devices) {
  return used == devices ? std::to_string(used) : fmt::format("{} of {}", used, devices);
}

std::string what_if_table(const std::vector<WhatIf>& all, double same, double best) {
  Rows rows{{"what if", "x 1/2", "-10 %", "+10 %", "x 2", "1/2 anew", "2 anew", "as"}};
  for (auto what = all.begin(); what != all.end(); what += 4) {
    rows.push_back({what->property, change(what[0].same, same), change(what[1].same, same), change(what[2].same, same),
                    change(what[3].same, same), change(what[0].best, best), change(what[3].best, best), what[3].as});
  }
  return "\nStep time when one property of the machine changes, with this layout and planned anew:\n" +
         format_table(rows);
}

Json what_if_json(const std::vector<WhatIf>& all) {
  Json json = Json::array();
  for (const WhatIf& what : all) {
    Json entry{{"property", what.property}, {"factor", what.factor}};
    if (what.same) entry["same_layout_step_s"] = *what.same;
    if (what.best) {
      entry["best_layout_step_s"] = *what.best;
      entry["best_layout"] = what.plan;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

std::string with_lines_below(std::string_view table, const std::vector<std::string>& lines) {
  std::string text(table.substr(0, table.find('\n') + 1));
  table.remove_prefix(text.size());
  for (const std::string& line : lines) {
    const std::size_t end = table.find('\n') + 1;
    text += table.substr(0, end);
    if (!line.empty()) text += wrap("   " + line);
    table.remove_prefix(end);
  }
  return text;
}

std::string scaling_table(const std::vector<ScalingRow>& scaling, const std::string& by, bool weak) {
  Rows rows{{"devices", "batch", by, "tokens/s", "efficiency", "MFU", "memory", "USD", "layout"}};
  std::vector<std::string> below;
  double first = 0;  // tokens a second and device
  for (const ScalingRow& row : scaling) {
    below.push_back(row.below);
    if (!row.step) {
      rows.push_back({std::to_string(row.devices), std::to_string(row.batch), "-", "-", "-", "-", "-", "-",
                      row.below.empty() ? "none fits" : ""});
      continue;
    }
    const double each = row.tokens_per_second / static_cast<double>(row.used);
    if (first == 0) first = each;
    rows.push_back({devices_text(row.used, row.devices), std::to_string(row.batch), to_string(*row.step),
                    rounded_with_thousands(row.tokens_per_second), percent(each / first),
                    row.mfu ? percent(*row.mfu) : "-", to_string(row.memory), cost_text(row.dollars), row.plan});
  }
  const auto drop_empty = [&](std::size_t column) {
    const auto is_empty = [&](const auto& row) { return row[column].empty() || row[column] == "-"; };
    if (!std::all_of(rows.begin() + 1, rows.end(), is_empty)) return;
    for (auto& row : rows) row.erase(row.begin() + static_cast<std::ptrdiff_t>(column));
  };
  drop_empty(8);
  drop_empty(5);
  return fmt::format("\n{} scaling:\n", weak ? "Weak" : "Strong") + with_lines_below(format_table(rows), below);
}

}  // namespace stagecraft
