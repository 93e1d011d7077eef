#include "reports/schedule_comparison.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/text.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

std::int64_t count_messages(const ComputeSchedule& schedule) {
  const Placement placement(schedule);
  std::int64_t crossings = 0;
  for (std::int32_t s = 0; s + 1 < schedule.stages; ++s) {
    for (std::int32_t m = 0; m < schedule.microbatches; ++m) {
      const MicrobatchId microbatch{m};
      crossings += placement.rank(StageId{s}, microbatch) != placement.rank(StageId{s + 1}, microbatch) ? 1 : 0;
    }
  }
  return schedule.forward_only ? crossings : 2 * crossings;
}

ScheduleFigures figures_of(const ComputeSchedule& schedule, const StageTimes& times, double message) {
  const std::vector<StageTimes> of_stages(static_cast<std::size_t>(schedule.stages), times);
  const ClockedSchedule clock = clock_schedule(schedule, of_stages, message);
  const std::vector<int> peaks = peak_in_flight_by_rank(schedule);
  ScheduleFigures figures;
  figures.name = schedule.name;
  figures.makespan = clock.makespan;
  figures.idle_share = clock.idle_share();
  figures.span_bubble = clock.span_bubble();
  figures.peak_stash = static_cast<double>(*std::max_element(peaks.begin(), peaks.end())) / schedule.slices;
  figures.messages = count_messages(schedule);
  figures.trains_alike = !schedule.forward_only && schedule.updates == WeightUpdates::synchronous;
  return figures;
}

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

}  // namespace

ScheduleComparison compare_schedules(ScheduleShape shape, const StageTimes& times, double message) {
  shape.times.assign(static_cast<std::size_t>(shape.ranks) * static_cast<std::size_t>(shape.stages_per_rank), times);
  shape.message = message;
  ScheduleComparison comparison;
  for (const ScheduleKind& kind : schedule_kinds()) {
    const std::string reason = kind.refuse(shape);
    if (reason.empty()) {
      comparison.ranked.push_back(figures_of(make_schedule(kind.name, shape), times, message));
    } else {
      comparison.refused.emplace_back(kind.name, reason);
    }
  }
  std::stable_sort(comparison.ranked.begin(), comparison.ranked.end(),
                   [](const ScheduleFigures& a, const ScheduleFigures& b) {
                     if (a.trains_alike != b.trains_alike) return a.trains_alike;
                     return a.makespan < b.makespan;
                   });
  return comparison;
}

std::string to_text(const ScheduleComparison& comparison) {
  std::vector<std::vector<std::string>> rows{
      {"schedule", "makespan", "idle/total", "zero-bubble rate", "peak stash", "messages"}};
  bool any_unlike = false;
  for (const ScheduleFigures& figures : comparison.ranked) {
    any_unlike = any_unlike || !figures.trains_alike;
    rows.push_back({figures.name + (figures.trains_alike ? "" : " *"), fmt::format("{:g}", figures.makespan),
                    percent(figures.idle_share), percent(figures.span_bubble), fmt::format("{:g}", figures.peak_stash),
                    with_thousands(figures.messages)});
  }
  std::string out = format_table(rows);
  if (any_unlike) out += "\n* not one synchronous step: weights are stale, or there are forwards alone\n";
  if (!comparison.refused.empty()) out += "\nnot with this shape:\n";
  for (const auto& [name, reason] : comparison.refused) out += wrap(fmt::format("  {}: {}", name, reason));
  return out;
}

Json to_json(const ScheduleComparison& comparison) {
  Json json = {{"schedules", Json::array()}, {"refused", Json::array()}};
  for (const ScheduleFigures& figures : comparison.ranked) {
    json["schedules"].push_back({{"name", figures.name},
                                 {"makespan", figures.makespan},
                                 {"idle_share", figures.idle_share},
                                 {"zero_bubble_rate", figures.span_bubble},
                                 {"peak_stash", figures.peak_stash},
                                 {"messages", figures.messages},
                                 {"synchronous_training", figures.trains_alike}});
  }
  for (const auto& [name, reason] : comparison.refused) {
    json["refused"].push_back({{"name", name}, {"reason", reason}});
  }
  return json;
}

}  // namespace stagecraft
