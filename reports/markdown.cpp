// The report as Markdown: the same content as the page, without its pictures.
#include "reports/markdown.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "models/text.hpp"
#include "reports/report_facts.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t loss_rows = 12;
constexpr std::size_t max_memory_rows = 64;

std::string loss_table(const std::vector<double>& losses) {
  const std::size_t shown = std::min(losses.size(), loss_rows);
  std::vector<std::vector<std::string>> rows{{"step", "loss"}};
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t step = shown == 1 ? 0 : i * (losses.size() - 1) / (shown - 1);
    rows.push_back({fmt::format("{}", step + 1), loss_text(losses[step])});
  }
  return markdown_table(rows);
}

std::string totals_table(const ReportFacts& facts, bool differs) {
  std::vector<std::vector<std::string>> rows{{"action"}};
  for (const std::string& name : facts.names) rows[0].push_back(name);
  if (differs) rows[0].push_back("difference");
  for (const KindTotal& total : facts.totals) {
    std::vector<std::string> row{total.name + (total.overlaps ? " (beside the work)" : "")};
    for (const auto& value : total.by_trace) row.push_back(time_or_dash(value));
    const std::size_t last = total.by_trace.size() - 1;
    if (differs) row.push_back(difference_text(total.by_trace[last - 1], total.by_trace[last]));
    rows.push_back(std::move(row));
  }
  return markdown_table(rows);
}

std::string memory_table(const std::vector<MemoryFact>& memory) {
  const auto bytes = [](const std::optional<double>& value) { return value ? to_string(Bytes(*value)) : "-"; };
  std::vector<std::vector<std::string>> rows{{"rank", "predicted", "measured", "device"}};
  for (const MemoryFact& fact : memory) {
    if (rows.size() > max_memory_rows) break;
    rows.push_back({fmt::format("{}", fact.rank), bytes(fact.predicted), bytes(fact.measured), bytes(fact.available)});
  }
  std::string out = markdown_table(rows);
  if (memory.size() > max_memory_rows)
    out += fmt::format("\nThe first {} of {} ranks.\n", max_memory_rows, memory.size());
  return out;
}

}  // namespace

std::string markdown_text(std::string_view text, std::size_t limit) {
  std::string out;
  for (const char c : printable(text, limit)) {
    if (c == '<' || c == '>' || c == '&') {
      out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : "&amp;";
      continue;
    }
    if (std::string_view("|*_`[]\\#").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_table(std::span<const std::vector<std::string>> rows) {
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out += "|";
    for (const std::string& cell : rows[r]) out += " " + markdown_text(cell, 200) + " |";
    out += "\n";
    if (r > 0) continue;
    out += "|---|";
    for (std::size_t c = 1; c < rows[0].size(); ++c) out += "---:|";
    out += "\n";
  }
  return out;
}

std::string markdown_report(const ReportInput& input) {
  const ReportFacts facts = report_facts(input);
  std::string out = "# " + markdown_text(facts.title, 200) + "\n\n";
  for (const Headline& headline : facts.headlines) {
    out += fmt::format("- **{}:** {} ({})\n", markdown_text(headline.label), markdown_text(headline.value),
                       markdown_text(headline.note, 200));
  }
  out += fmt::format("\n## {}\n\n", input.measured != nullptr ? "Predicted against measured" : "Predicted") +
         to_markdown(facts.comparison);
  out += "\n## Where the time goes\n\nAll ranks of one replica in one step.\n\n";
  out += totals_table(facts, input.measured != nullptr && facts.traces.size() > 1);
  if (!facts.losses.empty()) out += "\n## Loss\n\n" + loss_table(facts.losses);
  if (!facts.memory.empty()) out += "\n## Peak memory\n\n" + memory_table(facts.memory);
  if (input.plan != nullptr) out += "\n## Stages of the plan\n\n" + markdown_table(stage_rows(*input.plan));
  out += "\n## What ran\n\n";
  for (const auto& [name, value] : facts.context) out += "- " + name + ": " + markdown_text(value, 300) + "\n";
  return out;
}

}  // namespace stagecraft
