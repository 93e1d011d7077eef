#include "reports/report_facts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "models/text.hpp"
#include "models/version.hpp"
#include "reports/picture.hpp"

namespace stagecraft {
namespace {

bool overlaps_work(ActionKind kind) {
  return kind == ActionKind::send_forward || kind == ActionKind::send_backward || kind == ActionKind::reduce_tied ||
         kind == ActionKind::reduce_grad;
}

std::map<ActionKind, double> totals_of(const Trace& trace) {
  std::map<ActionKind, double> totals;
  std::set<std::tuple<int, int, int>> runs;  // step, replica, shard
  for (const TraceEvent& event : trace.events) {
    totals[event.action.kind] += (event.end - event.start).value();
    runs.emplace(event.step, event.replica, event.shard);
  }
  for (auto& [kind, total] : totals) total /= static_cast<double>(runs.size());
  return totals;
}

std::vector<KindTotal> kind_totals(const std::vector<const Trace*>& traces) {
  std::vector<KindTotal> rows;
  std::map<std::string_view, std::size_t> index;
  KindTotal rest{"idle and other", "idle", false, {}};
  rest.by_trace.resize(traces.size());
  for (std::size_t t = 0; t < traces.size(); ++t) {
    double left = summarize(*traces[t]).step.value() * traces[t]->ranks;
    for (const auto& [kind, total] : totals_of(*traces[t])) {
      const auto [found, added] = index.emplace(kind_name(kind), rows.size());
      if (added) rows.push_back({std::string(kind_name(kind)), std::string(css_class(kind)), overlaps_work(kind), {}});
      KindTotal& row = rows[found->second];
      row.by_trace.resize(traces.size());
      row.by_trace[t] = row.by_trace[t].value_or(0) + total;
      if (!row.overlaps) left -= total;
    }
    rest.by_trace[t] = std::max(0.0, left);
  }
  rows.push_back(rest);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const KindTotal& a, const KindTotal& b) { return a.overlaps < b.overlaps; });
  return rows;
}

std::vector<MemoryFact> memory_facts(const ReportInput& input, const Comparison& all) {
  std::vector<MemoryFact> facts;
  for (const ComparisonRow& row : all.rows) {
    if (row.figure != Figure::peak_memory) continue;
    MemoryFact fact;
    fact.rank = row.rank.value;
    for (const auto& value : row.predicted) {
      if (value) fact.predicted = value;  // the last rung that says
    }
    fact.measured = row.measured;
    facts.push_back(fact);
  }
  if (input.plan == nullptr) return facts;
  const std::vector<RankMemory> memory = rank_memory(*input.plan);
  if (facts.empty() && is_priced(*input.plan)) {
    for (std::size_t rank = 0; rank < memory.size(); ++rank) {
      facts.push_back({static_cast<int>(rank), memory[rank].needed.value(), {}, {}});
    }
  }
  for (MemoryFact& fact : facts) {
    const auto rank = static_cast<std::size_t>(fact.rank);
    if (rank < memory.size()) fact.available = memory[rank].available.value();
  }
  return facts;
}

std::vector<std::pair<std::string, std::string>> context_of(const ReportInput& input, const ReportFacts& facts) {
  std::vector<std::pair<std::string, std::string>> context;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) context.emplace_back(name, value);
  };
  const Trace& last = *facts.traces.back();
  if (input.plan != nullptr) {
    for (const auto& fact : plan_facts(*input.plan)) {
      if (fact.first != "step time" && fact.first != "expected") context.push_back(fact);
    }
  } else {
    add("network", last.network);
    add("layout", fmt::format("{} on {}, {}, schedule {}", counted(last.stages, "stage"), counted(last.ranks, "rank"),
                              counted(last.replicas, "replica"), last.schedule));
    add("batch", fmt::format("{}, {} a step", counted(last.microbatches, "micro-batch"),
                             counted(last.tokens_per_step, "token")));
  }
  add("predicted by", fmt::format("{}", fmt::join(facts.comparison.rungs, ", ")));
  if (input.measured != nullptr) {
    add("measured on", fmt::format("{}, {}", input.measured->source,
                                   counted(static_cast<long long>(input.measured->step_times.size()), "step")));
    add("machine", input.measured->machine);
    add("date", input.measured->date);
  }
  add("plan digest", last.plan_digest);
  add("written by", std::string("stagecraft ") + (last.tool_version.empty() ? version : last.tool_version));
  return context;
}

const ComparisonRow* find_row(const Comparison& comparison, Figure figure) {
  for (const ComparisonRow& row : comparison.rows) {
    if (row.figure == figure) return &row;
  }
  return nullptr;
}

// The figure as measured, and beneath it what the last rung that says predicted.
Headline headline(const Comparison& comparison, Figure figure, const std::string& label) {
  Headline result{label, "-", ""};
  const ComparisonRow* row = find_row(comparison, figure);
  if (row == nullptr) return result;
  for (std::size_t rung = comparison.rungs.size(); rung-- > 0;) {
    if (!row->predicted[rung]) continue;
    const std::string predicted = format_value(figure, row->predicted[rung]);
    if (row->measured) {
      result.note = fmt::format("{} {}, {}", comparison.rungs[rung], predicted, format_error(figure, row->error[rung]));
    } else {
      result.value = predicted;
      result.note = comparison.rungs[rung];
    }
    break;
  }
  if (row->measured) result.value = format_value(figure, row->measured);
  return result;
}

std::vector<Headline> headlines_of(const ReportFacts& facts) {
  const bool measured = !facts.comparison.measured.empty();
  std::vector<Headline> headlines{
      headline(facts.comparison, Figure::step_time, measured ? "step time, measured" : "step time, predicted"),
      headline(facts.comparison, Figure::bubble, "bubble (idle / total)")};
  const Trace& last = *facts.traces.back();
  const Seconds step = summarize(last).step;
  if (last.tokens_per_step > 0 && step > Seconds(0)) {
    const double rate = static_cast<double>(last.tokens_per_step) / step.value();
    headlines.push_back({"tokens a second", rounded_with_thousands(rate),
                         fmt::format("{} a step", with_thousands(last.tokens_per_step))});
  }
  const MemoryFact* fullest = nullptr;
  for (const MemoryFact& fact : facts.memory) {
    if (fullest == nullptr || fact.fullness() > fullest->fullness()) fullest = &fact;
  }
  if (fullest != nullptr) {
    Headline memory{"peak memory", to_string(Bytes(fullest->used())), fmt::format("rank {}", fullest->rank)};
    if (fullest->available) memory.note += " of " + to_string(Bytes(*fullest->available));
    headlines.push_back(memory);
  }
  if (!facts.losses.empty()) {
    headlines.push_back({"loss", fmt::format("{:.4g}", facts.losses.back()),
                         fmt::format("from {:.4g} in {}", facts.losses.front(),
                                     counted(static_cast<long long>(facts.losses.size()), "step"))});
  }
  return headlines;
}

}  // namespace

ReportFacts report_facts(const ReportInput& input) {
  assert(!input.predicted.empty() || input.measured != nullptr);
  ReportFacts facts;
  const Comparison all = input.measured != nullptr ? compare(input.plan, input.predicted, *input.measured)
                                                   : tabulate(input.plan, input.predicted);
  facts.comparison = condensed(all);
  const std::size_t first_trace = input.plan != nullptr ? 1 : 0;
  for (std::size_t i = 0; i < input.predicted.size(); ++i) {
    facts.traces.push_back(&input.predicted[i]);
    facts.names.push_back(facts.comparison.rungs[first_trace + i]);
  }
  if (input.measured != nullptr) {
    facts.traces.push_back(input.measured);
    facts.names.push_back(printable(input.measured->source, 14) + " (measured)");
    facts.losses = input.measured->losses;
  }
  facts.title = input.title;
  if (facts.title.empty()) {
    const Trace& last = *facts.traces.back();
    facts.title = last.network.empty() ? "pipeline" : last.network;
    if (!last.schedule.empty()) facts.title += ", " + last.schedule;
    if (!last.machine.empty()) facts.title += ", on " + last.machine;
  }
  facts.totals = kind_totals(facts.traces);
  facts.memory = memory_facts(input, all);
  facts.context = context_of(input, facts);
  facts.headlines = headlines_of(facts);
  return facts;
}

std::string time_or_dash(const std::optional<double>& seconds) { return seconds ? to_string(Seconds(*seconds)) : "-"; }

std::string difference_text(const std::optional<double>& from, const std::optional<double>& to) {
  if (!from || !to) return "-";
  std::string text = (*to >= *from ? "+" : "") + to_string(Seconds(*to - *from));
  if (*from > 0) text += " (" + format_error(Figure::action, 100 * (*to - *from) / *from) + ")";
  return text;
}

}  // namespace stagecraft
