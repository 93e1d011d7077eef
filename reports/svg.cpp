#include "reports/svg.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "models/text.hpp"
#include "reports/escape.hpp"
#include "reports/picture.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_rows = 256;
constexpr const char* schedule_source = "schedule";

std::string default_title(const Trace& trace) {
  if (trace.source == schedule_source) {
    return fmt::format("{}: {}, {}", trace.schedule, counted(trace.stages, "stage"),
                       counted(trace.microbatches, "micro-batch"));
  }
  std::string title = trace.source;
  for (const std::string* part : {&trace.network, &trace.schedule, &trace.machine}) {
    if (!part->empty()) title += ", " + *part;
  }
  return title;
}

}  // namespace

Trace clock_trace(const ComputeSchedule& schedule, const ClockedSchedule& clock) {
  Trace trace;
  trace.source = schedule_source;
  trace.schedule = schedule.name;
  trace.stages = schedule.stages;
  trace.microbatches = schedule.microbatches;
  trace.ranks = static_cast<int>(schedule.ranks.size());
  trace.replicas = 1;
  trace.stage_ranks = placement(schedule);
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (std::size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const ClockSpan& span = clock.spans[rank][i];
      trace.events.push_back({0, 0, RankId{static_cast<std::int32_t>(rank)}, schedule.ranks[rank][i],
                              Seconds(span.start), Seconds(span.end), Bytes(0)});
    }
  }
  trace.step_times = {Seconds(clock.makespan)};
  return trace;
}

std::string to_svg(const Trace& trace, const SvgOptions& options) {
  const Picture picture = make_picture(trace, options.step, max_rows, options.max_boxes);
  PictureLayout layout = layout_for(picture, options.width, picture.end);
  layout.unitless = trace.source == schedule_source;
  const double top = 62, bottom = top + rows_height(picture, layout), height = bottom + 28;
  const std::string title = options.title.empty() ? default_title(trace) : options.title;

  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pic\" width=\"{0:g}\" height=\"{1:g}\" viewBox=\"0 0 {0:g} "
      "{1:g}\" role=\"img\">\n<title>{2}</title>\n<style>\n{3}.ground{{fill:#fff}}\n"
      "@media(prefers-color-scheme:dark){{.ground{{fill:#161b22}}}}\n</style>\n"
      "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
      layout.width, height, escape(title, 300), picture_style());
  out += fmt::format("<text class=\"ttl\" x=\"14\" y=\"24\">{}</text>\n", escape(title, 120));
  const double end = append_legend(out, {&picture}, 14, 47);
  if (!picture.note.empty()) out += fmt::format("<text x=\"{:g}\" y=\"47\">({})</text>\n", end, escape(picture.note));
  append_axis(out, layout, top, bottom);
  append_rows(out, picture, layout, top);
  return out + "</svg>\n";
}

std::string to_svg(const ComputeSchedule& schedule, const SvgOptions& options) {
  return to_svg(clock_trace(schedule, clock_schedule(schedule)), options);
}

}  // namespace stagecraft
