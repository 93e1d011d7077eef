// The report as one HTML page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "models/text.hpp"
#include "reports/chart.hpp"
#include "reports/escape.hpp"
#include "reports/page.hpp"
#include "reports/picture.hpp"
#include "reports/report_facts.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_rows = 64;  // of one timeline
constexpr std::size_t fullest_ranks = 32;
constexpr double good_error = 5, fair_error = 15;  // percent or points
constexpr double minor_share = 1e-3;               // of the step time

template <class... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

// The colour of an error; grey where the action is too short to matter for the step.
std::string_view grade(const ComparisonRow& row, double error, double step) {
  if (row.figure == Figure::action && row.measured.value_or(0) < minor_share * step) return "minor";
  const double size = std::abs(error);
  return size <= good_error ? "good" : size <= fair_error ? "fair" : "poor";
}

void put_head(std::string& out, const ReportFacts& facts) {
  out +=
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n";
  put(out, "<title>{}</title>\n<style>\n{}{}</style>\n</head>\n<body class=\"pic\">\n<main>\n",
      escape(facts.title, 200), picture_style(), page_style());
  put(out, "<header>\n<p class=\"eyebrow\">{}</p>\n<h1>{}</h1>\n</header>\n",
      facts.comparison.measured.empty() ? "Predicted training step" : "Predicted against measured",
      escape(facts.title, 200));
}

void put_tiles(std::string& out, const ReportFacts& facts) {
  out += "<div class=\"tiles\">\n";
  for (const Headline& headline : facts.headlines) {
    put(out, "<div class=\"tile\"><span>{}</span><b>{}</b><span>{}</span></div>\n", escape(headline.label),
        escape(headline.value), escape(headline.note));
  }
  out += "</div>\n";
}

void put_warnings(std::string& out, const std::vector<std::string>& warnings) {
  if (warnings.empty()) return;
  out += "<section class=\"warn\">\n<h2>Read with care</h2>\n<ul>\n";
  for (const std::string& warning : warnings) put(out, "<li>{}</li>\n", escape(warning, 600));
  out += "</ul>\n</section>\n";
}

void put_context(std::string& out, const ReportFacts& facts) {
  out += "<section>\n<h2>What ran</h2>\n<dl>\n";
  for (const auto& [name, value] : facts.context)
    put(out, "<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value, 300));
  out += "</dl>\n</section>\n";
}

// The whole step, the stages' actions, the memory: ruled off from each other.
int section_of(const ComparisonRow& row) {
  return row.figure == Figure::peak_memory ? 2 : row.figure == Figure::action ? 1 : 0;
}

void put_comparison(std::string& out, const Comparison& comparison) {
  const bool measured = !comparison.measured.empty();
  put(out, "<section>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n<div class=\"scroll\">\n<table>\n<thead><tr><th></th>",
      measured ? "How far each prediction is off" : "What each prediction says",
      measured
          ? "Medians over the traced steps; error relative to the measured value, of the bubbles in percentage "
            "points; grey where the action takes less than 0.1 % of the step. The closed form shows the costs that "
            "the plan was made with."
          : "Medians. The closed form shows the costs that the plan was made with.");
  for (const std::string& rung : comparison.rungs) {
    put(out, "<th>{}</th>{}", escape(rung), measured ? "<th class=\"err\">error</th>" : "");
  }
  if (measured) out += "<th class=\"truth\">measured</th><th>10th to 90th percentile</th>";
  out += "</tr></thead>\n<tbody>\n";
  const ComparisonRow* before = nullptr;
  const double step = comparison.rows.empty() ? 0 : comparison.rows.front().measured.value_or(0);
  for (const ComparisonRow& row : comparison.rows) {
    const bool new_group = before != nullptr && (section_of(*before) != section_of(row) ||
                                                 (row.figure == Figure::action && before->stage != row.stage));
    put(out, "<tr{}><td>{}</td>", new_group ? " class=\"group\"" : "", escape(row.name));
    for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung) {
      put(out, "<td>{}</td>", format_value(row.figure, row.predicted[rung]));
      if (!measured) continue;
      const auto& error = row.error[rung];
      put(out, "<td class=\"err {}\">{}</td>", error ? grade(row, *error, step) : "", format_error(row.figure, error));
    }
    if (measured) {
      put(out, "<td class=\"truth\">{}</td><td>{}</td>", format_value(row.figure, row.measured),
          row.measured_low && row.measured_high
              ? format_value(row.figure, row.measured_low) + " to " + format_value(row.figure, row.measured_high)
              : "");
    }
    out += "</tr>\n";
    before = &row;
  }
  out += "</tbody>\n</table>\n</div>\n";
  if (measured) {
    out += "<p class=\"note table-note\">";
    for (std::size_t rung = 0; rung < comparison.rungs.size(); ++rung) {
      const RungError& error = comparison.errors[rung];
      if (!error.worst_pct) continue;
      put(out, "<b>{}</b>: step time {}, median error {:.1f} %, worst {:.1f} % ({}). ", escape(comparison.rungs[rung]),
          format_error(Figure::step_time, error.step_pct), *error.median_pct, *error.worst_pct,
          escape(error.worst_row));
    }
    out += "</p>\n";
  }
  out += "</section>\n";
}

void put_timelines(std::string& out, const ReportFacts& facts, std::size_t max_boxes) {
  std::vector<Picture> pictures;
  double end = 0;
  for (const Trace* trace : facts.traces) {
    pictures.push_back(make_picture(*trace, -1, max_rows, max_boxes));
    end = std::max(end, pictures.back().end);
  }
  out +=
      "<section>\n<h2>One step, rank by rank</h2>\n<p class=\"note\">The step of median length, all traces on the same "
      "time axis; numbers are micro-batches, the thin lane holds messages and reductions in flight.</p>\n";
  std::vector<const Picture*> views;
  for (const Picture& picture : pictures) views.push_back(&picture);
  std::string legend;
  const double legend_width = append_legend(legend, views, 0, 14);
  put(out,
      "<div class=\"scroll\"><svg class=\"pic\" viewBox=\"0 0 {0:g} 20\" style=\"width:{0:g}px\" role=\"img\" "
      "aria-label=\"legend\">{1}</svg></div>\n<div class=\"tools\" id=\"tools\"></div>\n",
      legend_width, legend);
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    PictureLayout layout = layout_for(pictures[i], 1200, end);
    const double bottom = 4 + rows_height(pictures[i], layout);
    put(out, "<h3>{}: {}{}{}</h3>\n<div class=\"scroll\">\n", escape(facts.names[i]),
        to_string(Seconds(pictures[i].end)),
        facts.traces[i]->step_times.size() > 1 ? fmt::format(", step {}", pictures[i].step + 1) : "",
        pictures[i].note.empty() ? "" : " (" + escape(pictures[i].note) + ")");
    put(out,
        "<svg class=\"pic tl wide\" viewBox=\"0 0 1200 {:g}\" data-name=\"{}\" data-end=\"{:.9g}\" role=\"img\" "
        "aria-label=\"timeline of {}\">\n",
        bottom + 22, escape(facts.names[i]), end, escape(facts.names[i]));
    append_axis(out, layout, 2, bottom);
    append_rows(out, pictures[i], layout, 4);
    out += "</svg>\n</div>\n";
  }
  out += "</section>\n";
}

void put_totals(std::string& out, const ReportFacts& facts, bool measured) {
  double largest = 0;
  for (const KindTotal& row : facts.totals) {
    for (const auto& value : row.by_trace) largest = std::max(largest, value.value_or(0));
  }
  const bool differs = measured && facts.traces.size() > 1;
  put(out,
      "<section>\n<h2>Where the time goes</h2>\n<p class=\"note\">Seconds of all ranks of one replica in one "
      "step{}. Sends and reductions run beside the ranks' work.</p>\n<div class=\"scroll\">\n<table>\n<thead>"
      "<tr><th>action</th>",
      differs ? fmt::format("; difference of the measured trace to {}; upper bar predicted, lower bar measured",
                            escape(facts.names[facts.names.size() - 2]))
              : "");
  for (std::size_t i = 0; i < facts.names.size(); ++i) {
    put(out, "<th{}>{}</th>", measured && i + 1 == facts.names.size() ? " class=\"truth\"" : "",
        escape(facts.names[i]));
  }
  out += differs ? "<th>difference</th><th class=\"bars\"></th></tr></thead>\n<tbody>\n"
                 : "<th class=\"bars\"></th></tr></thead>\n<tbody>\n";
  bool was_overlapping = false;
  for (const KindTotal& row : facts.totals) {
    put(out, "<tr{}><td><span class=\"swatch\" style=\"background:var(--{})\"></span>{}</td>",
        row.overlaps && !was_overlapping ? " class=\"group\"" : "", row.css, row.name);
    was_overlapping = row.overlaps;
    for (std::size_t i = 0; i < row.by_trace.size(); ++i) {
      put(out, "<td{}>{}</td>", measured && i + 1 == row.by_trace.size() ? " class=\"truth\"" : "",
          time_or_dash(row.by_trace[i]));
    }
    const std::size_t last = row.by_trace.size() - 1;
    if (differs) put(out, "<td>{}</td>", difference_text(row.by_trace[last - 1], row.by_trace[last]));
    out += "<td class=\"bars\">";
    for (std::size_t i = differs ? last - 1 : last; i <= last; ++i) {
      put(out, "<span class=\"bar{}\" style=\"width:{:.1f}%;background:var(--{})\"></span>",
          differs && i < last ? " p" : "", largest > 0 ? 100 * row.by_trace[i].value_or(0) / largest : 0,
          row.css == "idle" ? "line" : row.css);
    }
    out += "</td></tr>\n";
  }
  out += "</tbody>\n</table>\n</div>\n</section>\n";
}

void put_losses(std::string& out, const std::vector<double>& losses) {
  const std::string curve = loss_svg(losses);
  if (curve.empty()) return;
  const auto bad = std::count_if(losses.begin(), losses.end(), [](double loss) { return !std::isfinite(loss); });
  put(out,
      "<section>\n<h2>Loss</h2>\n<p class=\"note\">{}, from {:.4g} to {:.4g}{}.</p>\n<div class=\"scroll\">{}"
      "</div>\n</section>\n",
      counted(static_cast<long long>(losses.size()), "step"), losses.front(), losses.back(),
      bad == 0 ? "" : fmt::format("; {} not finite", counted(bad, "loss")), curve);
}

void put_stages(std::string& out, const Plan& plan) {
  const auto rows = stage_rows(plan);
  put(out,
      "<section>\n<h2>Stages of the plan</h2>\n<p class=\"note\">Times of one micro-batch; memory of the whole rank, "
      "on "
      "each device that it is split over."
      "</p>\n{}<div class=\"scroll\">\n<table>\n",
      rows.size() > 18 ? fmt::format("<details><summary>{} stages</summary>\n", plan.stages.size()) : "");
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out += r == 0 ? "<thead><tr>" : "<tr>";
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const bool text = c == 1 || c == 3;
      put(out, "<{0}{1}>{2}</{0}>", r == 0 ? "th" : "td", text ? " class=\"l\"" : "", escape(rows[r][c]));
    }
    out += r == 0 ? "</tr></thead>\n<tbody>\n" : "</tr>\n";
  }
  put(out, "</tbody>\n</table>\n</div>\n{}</section>\n", rows.size() > 18 ? "</details>\n" : "");
}

void put_memory(std::string& out, std::vector<MemoryFact> memory) {
  if (memory.empty()) return;
  const auto most = [](const MemoryFact& fact) {
    return std::max(fact.predicted.value_or(0), fact.measured.value_or(0));
  };
  const std::size_t all = memory.size();
  if (all > fullest_ranks) {
    std::stable_sort(memory.begin(), memory.end(),
                     [](const MemoryFact& a, const MemoryFact& b) { return a.fullness() > b.fullness(); });
    memory.resize(fullest_ranks);
  }
  double full = 1;
  for (const MemoryFact& fact : memory) full = std::max({full, fact.available.value_or(0), most(fact)});
  const auto bytes = [](const std::optional<double>& value) { return value ? to_string(Bytes(*value)) : "-"; };
  const bool measured =
      std::any_of(memory.begin(), memory.end(), [](const MemoryFact& fact) { return fact.measured.has_value(); });
  put(out,
      "<section>\n<h2>Peak memory</h2>\n<p class=\"note\">{}grey: what the device has{}.</p>\n<div class=\"scroll\">\n"
      "<table>\n<thead><tr><th>rank</th><th>predicted</th>{}<th>device</th><th>used</th><th class=\"bars\"></th></tr>"
      "</thead>\n<tbody>\n",
      measured ? "Upper bar predicted, lower bar measured; " : "",
      all > fullest_ranks ? fmt::format("; the {} fullest of {} ranks", fullest_ranks, all) : "",
      measured ? "<th class=\"truth\">measured</th>" : "");
  for (const MemoryFact& fact : memory) {
    const bool known = fact.available.value_or(0) > 0;
    const double share = known ? 100 * most(fact) / *fact.available : 0;
    put(out, "<tr><td>rank {}</td><td>{}</td>", fact.rank, bytes(fact.predicted));
    if (measured) put(out, "<td class=\"truth\">{}</td>", bytes(fact.measured));
    put(out, "<td>{}</td><td class=\"{}\">{}</td><td class=\"bars\">", bytes(fact.available), share > 100 ? "poor" : "",
        known ? fmt::format("{:.1f} %", share) : "-");
    const double device = std::max(fact.available.value_or(0), most(fact));
    for (const auto& [value, css] : {std::pair(fact.predicted, "bar p"), std::pair(fact.measured, "bar")}) {
      if (!value) continue;
      put(out,
          "<span class=\"bar track\" style=\"width:{:.1f}%\"><span class=\"{}\" style=\"width:{:.1f}%;"
          "background:var(--{})\"></span></span>",
          100 * device / full, css, device > 0 ? 100 * *value / device : 0,
          fact.available && *value > *fact.available ? "poor" : "f");
    }
    out += "</td></tr>\n";
  }
  out += "</tbody>\n</table>\n</div>\n</section>\n";
}

}  // namespace

std::string html_report(const ReportInput& input) {
  const ReportFacts facts = report_facts(input);
  const bool measured = input.measured != nullptr;
  std::string out;
  put_head(out, facts);
  put_tiles(out, facts);
  put_warnings(out, facts.comparison.warnings);
  put_comparison(out, facts.comparison);
  put_timelines(out, facts, input.max_boxes);
  put_totals(out, facts, measured);
  put_losses(out, facts.losses);
  put_memory(out, facts.memory);
  if (input.plan != nullptr) put_stages(out, *input.plan);
  put_context(out, facts);
  put(out,
      "<footer>Made by stagecraft. This page is complete in itself and loads nothing.</footer>\n</main>\n<script>\n{}"
      "</script>\n</body>\n</html>\n",
      page_script());
  return out;
}

}  // namespace stagecraft
