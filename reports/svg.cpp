#include "reports/svg.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "reports/escape.hpp"
#include "reports/picture.hpp"

namespace stagecraft {
namespace {

constexpr double unit_costs[] = {1, 2, 1, 1};  // F, B, I, W
constexpr std::size_t max_rows = 256;
constexpr const char* schedule_source = "schedule";

// When each forward and each input gradient of [stage][micro-batch] is done; negative: not yet.
struct Done {
  std::vector<std::vector<double>> forward, gradient;
};

// The earliest start of an action on its inputs, or negative when they are not there yet.
double ready_at(const Action& action, const Done& done, int stages) {
  const auto stage = static_cast<std::size_t>(action.stage.value);
  const auto microbatch = static_cast<std::size_t>(action.microbatch.value);
  const bool first = action.stage.value == 0, last = action.stage.value + 1 == stages;
  switch (action.kind) {
    case ActionKind::forward:
      return first ? 0 : done.forward[stage - 1][microbatch];
    case ActionKind::backward:
    case ActionKind::backward_input: {
      const double own = done.forward[stage][microbatch];
      if (last || own < 0) return own;
      const double next = done.gradient[stage + 1][microbatch];
      return next < 0 ? next : std::max(own, next);
    }
    default:
      return done.gradient[stage][microbatch];
  }
}

std::string default_title(const Trace& trace) {
  if (trace.source == schedule_source) {
    return fmt::format("{}: {} stages, {} micro-batches; F 1, B 2", trace.schedule, trace.stages, trace.microbatches);
  }
  std::string title = trace.source;
  for (const std::string* part : {&trace.network, &trace.schedule, &trace.machine}) {
    if (!part->empty()) title += ", " + *part;
  }
  return title;
}

}  // namespace

Trace unit_trace(const ComputeSchedule& schedule) {
  Trace trace;
  trace.source = schedule_source;
  trace.schedule = schedule.name;
  trace.stages = schedule.stages;
  trace.microbatches = schedule.microbatches;
  trace.ranks = static_cast<int>(schedule.ranks.size());
  trace.replicas = 1;
  trace.stage_ranks = placement(schedule);

  const std::vector<double> unknown(static_cast<std::size_t>(schedule.microbatches), -1);
  Done done;
  done.forward.assign(static_cast<std::size_t>(schedule.stages), unknown);
  done.gradient = done.forward;
  std::vector<std::size_t> next(schedule.ranks.size(), 0);
  std::vector<double> free_at(schedule.ranks.size(), 0);
  std::vector<std::vector<TraceEvent>> events(schedule.ranks.size());
  double end = 0;
  for (bool progress = true; progress;) {
    progress = false;
    for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
      for (; next[rank] < schedule.ranks[rank].size(); ++next[rank], progress = true) {
        const Action& action = schedule.ranks[rank][next[rank]];
        const double ready = ready_at(action, done, schedule.stages);
        if (ready < 0) break;
        const double start = std::max(free_at[rank], ready);
        free_at[rank] = start + unit_costs[static_cast<std::size_t>(action.kind)];
        end = std::max(end, free_at[rank]);
        const auto stage = static_cast<std::size_t>(action.stage.value);
        const auto microbatch = static_cast<std::size_t>(action.microbatch.value);
        if (action.kind == ActionKind::forward) done.forward[stage][microbatch] = free_at[rank];
        if (action.kind == ActionKind::backward || action.kind == ActionKind::backward_input) {
          done.gradient[stage][microbatch] = free_at[rank];
        }
        events[rank].push_back(
            {0, 0, RankId{static_cast<std::int32_t>(rank)}, action, Seconds(start), Seconds(free_at[rank]), Bytes(0)});
      }
    }
  }
  for (const auto& of_rank : events) trace.events.insert(trace.events.end(), of_rank.begin(), of_rank.end());
  trace.step_times = {Seconds(end)};
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
  return to_svg(unit_trace(schedule), options);
}

}  // namespace stagecraft
