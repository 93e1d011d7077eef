#include "reports/schedule_comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/lower_bound.hpp"
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

StageTimes divided(const StageTimes& times, double by) {
  return {times.forward / by, times.backward_input / by, times.backward_weight / by};
}

// `shape` with its times filled in.
ScheduleFigures figures_of(const ComputeSchedule& schedule, const ScheduleShape& shape, double stash_unit) {
  const std::vector<StageTimes> times(static_cast<std::size_t>(schedule.stages),
                                      divided(shape.times.front(), shape.slices));
  const ClockedSchedule clock = clock_schedule(schedule, times, shape.message);
  const std::vector<int> peaks = peak_in_flight_by_rank(schedule);
  ScheduleFigures figures;
  figures.name = schedule.name;
  figures.stages_per_rank = shape.stages_per_rank;
  figures.makespan = clock.makespan;
  figures.idle_share = clock.idle_share();
  figures.span_bubble = clock.span_bubble();
  figures.peak_stash = *std::max_element(peaks.begin(), peaks.end()) / (stash_unit * schedule.slices);
  figures.messages = count_messages(schedule);
  figures.weight_copies = Placement(schedule).is_bidirectional() ? 2 : 1;
  figures.trains_alike = !schedule.forward_only && schedule.updates == WeightUpdates::synchronous;
  const double limit = shape.memory_limit * (stash_unit == 1 ? shape.stages_per_rank : 1);
  figures.fits = shape.memory_limit <= 0 || figures.peak_stash <= limit * (1 + 1e-9);
  return figures;
}

void rank(ScheduleComparison& comparison) {
  std::stable_sort(
      comparison.ranked.begin(), comparison.ranked.end(), [](const ScheduleFigures& a, const ScheduleFigures& b) {
        return std::tuple(!a.trains_alike, !a.fits, a.makespan) < std::tuple(!b.trains_alike, !b.fits, b.makespan);
      });
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

}  // namespace

int fewest_stages_per_rank(const ScheduleKind& kind, ScheduleShape shape) {
  shape.microbatches = 4 * shape.ranks;
  shape.group = 0;
  shape.times.clear();
  for (shape.stages_per_rank = 1; shape.stages_per_rank <= 8; ++shape.stages_per_rank) {
    if (kind.refuse(shape).empty()) return shape.stages_per_rank;
  }
  return 1;
}

ScheduleComparison compare_schedules(ScheduleShape shape, const StageTimes& times, double message,
                                     const ComparisonProgress& progress) {
  shape.times.assign(static_cast<std::size_t>(shape.ranks) * static_cast<std::size_t>(shape.stages_per_rank), times);
  shape.message = message;
  shape.both_directions = true;
  ScheduleComparison comparison;
  for (const ScheduleKind& kind : schedule_kinds()) {
    const std::string reason = kind.refuse(shape);
    if (!reason.empty()) {
      comparison.refused.emplace_back(kind.name, reason);
      continue;
    }
    if (progress) progress(kind.name);
    const ComputeSchedule schedule = make_schedule(kind.name, shape);
    comparison.ranked.push_back(figures_of(schedule, shape, 1));
    if (kind.name == "searched") comparison.lower_bound = lower_bound(order_problem(shape, schedule));
  }
  rank(comparison);
  return comparison;
}

ScheduleComparison compare_schedules_of_one_network(ScheduleShape shape, const StageTimes& times, double message,
                                                    const ComparisonProgress& progress) {
  shape.message = message;
  shape.both_directions = true;
  ScheduleComparison comparison;
  comparison.own_stages = true;
  const auto cut = [&](int stages_per_rank, int slices) {
    ScheduleShape own = shape;
    own.stages_per_rank = stages_per_rank;
    own.slices = slices;
    own.times.assign(static_cast<std::size_t>(own.ranks) * static_cast<std::size_t>(stages_per_rank),
                     divided(times, stages_per_rank));
    return own;
  };
  std::set<std::array<int, 2>> cuts;  // that others take: stages a rank, slices
  for (const ScheduleKind& kind : schedule_kinds()) {
    if (kind.name == "searched") continue;
    if (progress) progress(kind.name);
    const int stages_per_rank = fewest_stages_per_rank(kind, shape);
    const int slices = kind.refuse(cut(stages_per_rank, 2)).empty() ? 2 : 1;
    const ScheduleShape own = cut(stages_per_rank, slices);
    const std::string reason = kind.refuse(own);
    if (reason.empty()) {
      cuts.insert({stages_per_rank, slices});
      comparison.ranked.push_back(figures_of(make_schedule(kind.name, own), own, stages_per_rank));
    } else {
      comparison.refused.emplace_back(kind.name, reason);
    }
  }
  std::optional<ScheduleFigures> best;
  for (const auto& [stages_per_rank, slices] : cuts) {
    if (progress) progress(fmt::format("searched, {} a rank", counted(stages_per_rank, "stage")));
    const ScheduleShape own = cut(stages_per_rank, slices);
    const ComputeSchedule schedule = make_schedule("searched", own);
    const ScheduleFigures figures = figures_of(schedule, own, stages_per_rank);
    if (best && best->makespan <= figures.makespan) continue;
    best = figures;
    comparison.lower_bound = lower_bound(order_problem(own, schedule));
  }
  if (best) comparison.ranked.push_back(*best);
  rank(comparison);
  return comparison;
}

std::string to_text(const ScheduleComparison& comparison) {
  std::vector<std::vector<std::string>> rows{
      {"schedule", "v", "makespan", "idle/total", "zero-bubble rate", "peak stash", "weights", "messages"}};
  bool any_unlike = false, any_over = false;
  for (const ScheduleFigures& figures : comparison.ranked) {
    any_unlike = any_unlike || !figures.trains_alike;
    any_over = any_over || !figures.fits;
    rows.push_back({figures.name + (figures.trains_alike ? "" : " *") + (figures.fits ? "" : " !"),
                    std::to_string(figures.stages_per_rank), fmt::format("{:.5g}", figures.makespan),
                    percent(figures.idle_share), percent(figures.span_bubble), fmt::format("{:g}", figures.peak_stash),
                    fmt::format("{}x", figures.weight_copies), with_thousands(figures.messages)});
  }
  std::string out = format_table(rows);
  if (comparison.lower_bound > 0) {
    out += fmt::format("\nlower bound {:.5g}: no order of searched's stages on their ranks ends sooner\n",
                       comparison.lower_bound);
  }
  if (any_unlike) out += "\n* not one synchronous step: weights are stale, or there are forwards alone\n";
  if (any_over) out += "\n! keeps more activations than --memory allows\n";
  if (!comparison.refused.empty()) out += "\nnot with this shape:\n";
  for (const auto& [name, reason] : comparison.refused) out += wrap(fmt::format("  {}: {}", name, reason));
  return out;
}

Json to_json(const ScheduleComparison& comparison) {
  Json json = {{"schedules", Json::array()}, {"refused", Json::array()}, {"lower_bound", comparison.lower_bound}};
  for (const ScheduleFigures& figures : comparison.ranked) {
    json["schedules"].push_back({{"name", figures.name},
                                 {"stages_per_rank", figures.stages_per_rank},
                                 {"makespan", figures.makespan},
                                 {"idle_share", figures.idle_share},
                                 {"zero_bubble_rate", figures.span_bubble},
                                 {"peak_stash", figures.peak_stash},
                                 {"messages", figures.messages},
                                 {"weight_copies", figures.weight_copies},
                                 {"synchronous_training", figures.trains_alike},
                                 {"fits_memory", figures.fits}});
  }
  for (const auto& [name, reason] : comparison.refused) {
    json["refused"].push_back({{"name", name}, {"reason", reason}});
  }
  return json;
}

}  // namespace stagecraft
