#include "reports/picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "models/error.hpp"
#include "reports/chart.hpp"
#include "reports/escape.hpp"

namespace stagecraft {
namespace {

constexpr double digit_width = 6.6;  // of the boxes' font, pixels

// Messages in flight and reductions overlap the rank's work: they have the thin lane below it.
bool is_thin(ActionKind kind) {
  return kind == ActionKind::send_forward || kind == ActionKind::send_backward || kind == ActionKind::reduce_tied ||
         kind == ActionKind::reduce_grad;
}

std::map<int, double> step_ends(const Trace& trace) {
  std::map<int, double> ends;
  for (const TraceEvent& event : trace.events) {
    double& end = ends[event.step];
    end = std::max(end, event.end.value());
  }
  return ends;
}

int median_step(const std::map<int, double>& ends) {
  std::vector<std::pair<double, int>> by_length;
  for (const auto& [step, end] : ends) by_length.emplace_back(end, step);
  std::sort(by_length.begin(), by_length.end());
  return by_length[(by_length.size() - 1) / 2].second;
}

// `count` of the rows, of which a replica has `of_replica`: the first replicas whole or, where not even one fits, rows
// of the first evenly, its first and last among them.
std::vector<int> choose_rows(std::vector<int> rows, int of_replica, std::size_t count) {
  if (rows.size() <= count) return rows;
  const auto of_first = static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [&](int row) { return row / of_replica == rows.front() / of_replica; }));
  if (count >= of_first) {
    rows.resize(count / of_first * of_first);
    return rows;
  }
  std::vector<int> chosen;
  for (std::size_t i = 0; i < count; ++i) {
    chosen.push_back(rows[count == 1 ? 0 : (i * (of_first - 1) + (count - 1) / 2) / (count - 1)]);
  }
  return chosen;
}

std::vector<int> chunks_by_stage(const Trace& trace) {
  std::map<int, int> seen;
  std::vector<int> chunks;
  for (const RankId rank : trace.stage_ranks) chunks.push_back(seen[rank.value]++);
  return chunks;
}

struct AxisUnit {
  double scale;
  std::string_view name;
};

AxisUnit unit_for(const PictureLayout& layout) {
  if (layout.unitless) return {1, ""};
  if (layout.end >= 1) return {1, " s"};
  if (layout.end >= 1e-3) return {1e-3, " ms"};
  return {1e-6, " us"};
}

std::string box_title(const PictureBox& box, bool unitless) {
  const auto time = [&](double seconds) {
    return unitless ? fmt::format("{:g}", seconds) : to_string(Seconds(seconds));
  };
  std::string title = fmt::format("{}: {}, starts {}, lasts {}", to_string(box.action), kind_name(box.action.kind),
                                  time(box.start), time(box.end - box.start));
  if (box.bytes > 0) title += ", " + to_string(Bytes(box.bytes));
  return title;
}

}  // namespace

std::string_view css_class(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return "f";
    case ActionKind::backward:
      return "b";
    case ActionKind::backward_input:
      return "i";
    case ActionKind::backward_weight:
      return "w";
    case ActionKind::send_forward:
    case ActionKind::send_backward:
      return "s";
    case ActionKind::recv_forward:
    case ActionKind::recv_backward:
      return "r";
    case ActionKind::reduce_tied:
    case ActionKind::reduce_grad:
    case ActionKind::unshard:
    case ActionKind::reshard:
      return "g";
    case ActionKind::optimizer_step:
      return "o";
  }
  return "";
}

std::string_view kind_name(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return "forward";
    case ActionKind::backward:
      return "backward";
    case ActionKind::backward_input:
      return "input gradient";
    case ActionKind::backward_weight:
      return "weight gradient";
    case ActionKind::send_forward:
    case ActionKind::send_backward:
      return "send in flight";
    case ActionKind::recv_forward:
    case ActionKind::recv_backward:
      return "waiting to receive";
    case ActionKind::unshard:
    case ActionKind::reshard:
      return "shard";
    case ActionKind::reduce_tied:
    case ActionKind::reduce_grad:
      return "reduction";
    case ActionKind::optimizer_step:
      return "optimizer step";
  }
  return "";
}

Picture make_picture(const Trace& trace, int step, std::size_t max_rows, std::size_t max_boxes) {
  const std::map<int, double> ends = step_ends(trace);
  Picture picture;
  picture.step = step >= 0 ? step : median_step(ends);
  const auto found = ends.find(picture.step);
  if (found == ends.end()) {
    throw bad_input("the trace has no step {}; it covers {} to {}", step, ends.begin()->first, ends.rbegin()->first);
  }
  picture.end = found->second;

  std::set<int> traced;  // a simulation of equal replicas may hold only the first
  std::size_t all_boxes = 0;
  for (const TraceEvent& event : trace.events) {
    if (event.step == picture.step) traced.insert(trace.row_of(event)), ++all_boxes;
  }
  const std::vector<int> all_rows(traced.begin(), traced.end());
  std::size_t row_count = std::min(all_rows.size(), max_rows);
  if (all_boxes > max_boxes) row_count = std::min(row_count, all_rows.size() * max_boxes / all_boxes);
  const std::vector<int> chosen =
      choose_rows(all_rows, trace.shards * trace.ranks, std::max<std::size_t>(1, row_count));
  std::map<int, int> row_index;
  for (const int row : chosen) {
    row_index.emplace(row, static_cast<int>(picture.rows.size()));
    picture.rows.push_back(trace.row_name(row));
  }

  const std::vector<int> chunks = chunks_by_stage(trace);
  for (const TraceEvent& event : trace.events) {
    const auto row = row_index.find(trace.row_of(event));
    if (event.step != picture.step || row == row_index.end()) continue;
    const auto stage = static_cast<std::size_t>(event.action.stage.value);
    picture.boxes.push_back({row->second, event.action, event.start.value(), event.end.value(), event.bytes.value(),
                             stage < chunks.size() ? chunks[stage] : 0});
  }
  if (chosen.size() < all_rows.size()) {
    picture.note = fmt::format("shows {} of {} ranks", chosen.size(), all_rows.size());
  }
  const auto by_start = [](const PictureBox& a, const PictureBox& b) { return a.start < b.start; };
  if (picture.boxes.size() > max_boxes) {
    std::stable_sort(picture.boxes.begin(), picture.boxes.end(), by_start);
    picture.note += fmt::format("{}shows the first {} of {} actions", picture.note.empty() ? "" : ", ", max_boxes,
                                picture.boxes.size());
    picture.boxes.resize(max_boxes);
  }
  std::stable_sort(picture.boxes.begin(), picture.boxes.end(), [](const PictureBox& a, const PictureBox& b) {
    return a.row != b.row ? a.row < b.row : a.start < b.start;
  });
  return picture;
}

PictureLayout layout_for(const Picture& picture, double width, double end) {
  PictureLayout layout;
  layout.width = width;
  layout.end = end > 0 ? end : 1;
  const std::size_t rows = picture.rows.size();
  layout.row_height = rows <= 8 ? 32 : rows <= 16 ? 26 : rows <= 32 ? 20 : 14;
  std::size_t longest = 0;
  for (const std::string& label : picture.rows) longest = std::max(longest, label.size());
  layout.gutter = 18 + 7.0 * static_cast<double>(longest);
  return layout;
}

double rows_height(const Picture& picture, const PictureLayout& layout) {
  return static_cast<double>(picture.rows.size()) * layout.row_height;
}

void append_rows(std::string& out, const Picture& picture, const PictureLayout& layout, double top) {
  const auto sink = std::back_inserter(out);
  const double thin = std::max(2.0, std::round(layout.row_height * 0.16));
  const double gap = layout.row_height >= 20 ? 4 : 2;
  const double thick = layout.row_height - thin - gap - 1;
  const double scale = layout.plot_width() / layout.end;
  for (std::size_t row = 0; row < picture.rows.size(); ++row) {
    const double y = top + static_cast<double>(row) * layout.row_height;
    fmt::format_to(sink, R"(<text class="rl" x="{:g}" y="{:g}">{}</text>)", layout.gutter - 8, y + thick / 2 + 4,
                   escape(picture.rows[row]));
    fmt::format_to(sink, "<rect class=\"idle\" x=\"{:g}\" y=\"{:g}\" width=\"{:g}\" height=\"{:g}\"/>\n", layout.gutter,
                   y, layout.plot_width(), thick);
  }
  // Nested: its own coordinates start at the gutter, and what is zoomed beyond the plot is cut off.
  fmt::format_to(sink,
                 "<svg class=\"plot\" x=\"{:g}\" y=\"{:g}\" width=\"{:g}\" height=\"{:g}\">\n<g class=\"boxes\">\n",
                 layout.gutter, top, layout.plot_width(), rows_height(picture, layout));
  std::string labels;
  for (const PictureBox& box : picture.boxes) {
    const bool in_thin_lane = is_thin(box.action.kind);
    const double y = box.row * layout.row_height + (in_thin_lane ? thick + 1 : 0);
    const double x = box.start * scale, width = (box.end - box.start) * scale;
    const std::string_view kind = css_class(box.action.kind);
    fmt::format_to(sink,
                   R"(<rect class="{}{}" x="{:.3f}" y="{:g}" width="{:.3f}" height="{:g}"><title>{}</title></rect>)",
                   kind, box.chunk > 0 ? fmt::format(" c{}", std::min(box.chunk, 3)) : "", x, y, std::max(width, 0.2),
                   in_thin_lane ? thin : thick, box_title(box, layout.unitless));
    out += '\n';
    if (!is_compute(box.action.kind) || thick < 9) continue;
    const std::string number = fmt::format("{}", box.action.microbatch.value);
    if (width < digit_width * static_cast<double>(number.size()) + 3) continue;
    fmt::format_to(std::back_inserter(labels), "<text x=\"{:.2f}\" y=\"{:g}\">{}</text>\n", x + width / 2,
                   y + thick / 2 + 4, number);
  }
  out += "</g>\n<g class=\"labels\">\n" + labels + "</g>\n</svg>\n";
}

void append_axis(std::string& out, const PictureLayout& layout, double top, double bottom) {
  const auto sink = std::back_inserter(out);
  const AxisUnit unit = unit_for(layout);
  const double step = nice_step(layout.end / unit.scale, 10);
  const double scale = layout.plot_width() / layout.end;
  out += "<g class=\"axis\">\n";
  for (int i = 0; i * step <= layout.end / unit.scale * (1 + 1e-9); ++i) {
    const double x = layout.gutter + i * step * unit.scale * scale;
    fmt::format_to(sink, "<line x1=\"{0:.2f}\" x2=\"{0:.2f}\" y1=\"{1:g}\" y2=\"{2:g}\"/>", x, top, bottom + 4);
    fmt::format_to(sink, "<text x=\"{:.2f}\" y=\"{:g}\">{:g}{}</text>\n", x, bottom + 17, i * step, unit.name);
  }
  out += "</g>\n";
}

double append_legend(std::string& out, const std::vector<const Picture*>& pictures, double x, double y) {
  std::map<std::string_view, std::string_view> words;  // CSS class -> word
  std::vector<std::string_view> order;
  for (int kind = 0; kind <= static_cast<int>(ActionKind::optimizer_step); ++kind) {
    for (const Picture* picture : pictures) {
      const auto kind_of = static_cast<ActionKind>(kind);
      const bool occurs = std::any_of(picture->boxes.begin(), picture->boxes.end(),
                                      [&](const PictureBox& box) { return box.action.kind == kind_of; });
      if (occurs && words.emplace(css_class(kind_of), kind_name(kind_of)).second) order.push_back(css_class(kind_of));
    }
  }
  words["idle"] = "idle";
  order.push_back("idle");
  out += "<g class=\"legend\">";
  for (const std::string_view kind : order) {
    fmt::format_to(std::back_inserter(out),
                   R"(<rect class="{}" x="{:g}" y="{:g}" width="12" height="12"/><text x="{:g}" y="{:g}">{}</text>)",
                   kind, x, y - 10, x + 17, y, words[kind]);
    x += 17 + 6.6 * static_cast<double>(words[kind].size()) + 20;
  }
  out += "</g>\n";
  return x;
}

std::string_view picture_style() {
  // Light fills with dark digits in both schemes; hues and lightness differ, so that kinds stay apart for readers who
  // see fewer colours.
  return R"(.pic{--ink:#1d2530;--soft:#5b6675;--line:#d9dee6;--idle:#eceff3;--f:#7cb7ea;--b:#f0a04b;--i:#f6d365;--w:#5fbf9b;--s:#8b6fd6;--g:#d9578f;--o:#5d6980;--r:#c6ccd5;--digit:#10202e;font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media(prefers-color-scheme:dark){.pic{--ink:#e6eaf0;--soft:#9aa6b6;--line:#323b47;--idle:#252c36;--f:#6aa9e0;--b:#e5964a;--i:#e8c65c;--w:#56b592;--s:#a58cf0;--g:#ea74a6;--o:#c3cbd9;--r:#48525f;--digit:#0b141d}}
.pic text{font-size:11px;fill:var(--soft)}
.pic .ttl{font-size:15px;font-weight:600;fill:var(--ink)}
.pic .rl{text-anchor:end}
.pic .idle{fill:var(--idle)}
.pic .f{fill:var(--f)}.pic .b{fill:var(--b)}.pic .i{fill:var(--i)}.pic .w{fill:var(--w)}
.pic .s{fill:var(--s)}.pic .g{fill:var(--g)}.pic .o{fill:var(--o)}
.pic .r{fill:var(--r)}
.pic .c1{fill-opacity:.8}.pic .c2{fill-opacity:.65}.pic .c3{fill-opacity:.55}
.pic .boxes rect{stroke:var(--page,#fff);stroke-width:.6;vector-effect:non-scaling-stroke}
.pic .boxes rect:hover{stroke:var(--ink);stroke-width:1.5}
.pic .labels text{fill:var(--digit);text-anchor:middle;pointer-events:none;font-variant-numeric:tabular-nums}
.pic .axis text{text-anchor:middle;font-variant-numeric:tabular-nums}
.pic .axis line{stroke:var(--line);stroke-width:1}
@media(prefers-color-scheme:dark){.pic{--page:#161b22}}
)";
}

}  // namespace stagecraft
