#include "reports/schedule_comparison.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/schedule/schedule.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

const ScheduleFigures& figures_of(const ScheduleComparison& comparison, std::string_view name) {
  const auto found = std::find_if(comparison.ranked.begin(), comparison.ranked.end(),
                                  [&](const ScheduleFigures& figures) { return figures.name == name; });
  if (found == comparison.ranked.end()) throw std::runtime_error("refused: " + std::string(name));
  return *found;
}

TEST(ScheduleComparison, RanksEverySchedule) {
  const ScheduleComparison comparison = compare_schedules({4, 1, 8}, {1, 1, 1}, 0);
  EXPECT_EQ(comparison.ranked.size() + comparison.refused.size(), schedule_kinds().size());
  EXPECT_TRUE(std::is_sorted(comparison.ranked.begin(), comparison.ranked.end(), [](const auto& a, const auto& b) {
    return a.trains_alike != b.trains_alike ? a.trains_alike : a.makespan < b.makespan;
  }));
  EXPECT_FALSE(comparison.ranked.back().trains_alike);
}

TEST(ScheduleComparison, HasTheFiguresOfTheClosedForms) {
  const ScheduleComparison comparison = compare_schedules({4, 1, 8}, {1, 1, 1}, 0);
  const ScheduleFigures& plain = figures_of(comparison, "1f1b");
  EXPECT_EQ(plain.makespan, 33);  // (M + P - 1) 3
  EXPECT_DOUBLE_EQ(plain.idle_share, 3.0 / 11);
  EXPECT_EQ(plain.peak_stash, 4);
  EXPECT_EQ(plain.messages, 2 * 3 * 8);
  const ScheduleFigures& split = figures_of(comparison, "zb-h2");
  EXPECT_EQ(split.makespan, 27);  // 3 M + P - 1
  EXPECT_EQ(split.span_bubble, 0);
  EXPECT_EQ(split.peak_stash, 7);
  EXPECT_EQ(figures_of(comparison, "gpipe").peak_stash, 8);
  EXPECT_EQ(figures_of(comparison, "inference").messages, 3 * 8);
  // Two stages a rank, in a V: three hops each way and back, none at the turn.
  const ScheduleComparison pairs = compare_schedules({4, 2, 8}, {1, 1, 1}, 0);
  EXPECT_EQ(figures_of(pairs, "zb-v").messages, 2 * 6 * 8);
  EXPECT_EQ(figures_of(pairs, "looped-bfs").messages, 2 * 7 * 8);
}

TEST(ScheduleComparison, PricesMessages) {
  const ScheduleComparison comparison = compare_schedules({4, 1, 8}, {2, 2, 2}, 1);
  EXPECT_EQ(figures_of(comparison, "gpipe").makespan, 11 * 6 + 2 * 3);
  EXPECT_EQ(figures_of(comparison, "eager-1f1b").makespan, 11 * 6 + 2 * 3);
  EXPECT_EQ(figures_of(comparison, "1f1b").makespan, 11 * 6 + 2 * 3 * 2 + 2 * 2);
}

TEST(ScheduleComparison, ComparesAllSchedulesOfOneNetwork) {
  const ScheduleComparison comparison = compare_schedules_of_one_network({4, 1, 8}, {2, 2, 2}, 0);
  EXPECT_TRUE(comparison.refused.empty());
  EXPECT_EQ(comparison.ranked.size(), schedule_kinds().size());
  EXPECT_EQ(figures_of(comparison, "1f1b").makespan, 66);     // (M + P - 1) 6
  const ScheduleFigures& v = figures_of(comparison, "zb-v");  // 6 M + P - 1 in halves of a rank's time
  EXPECT_EQ(v.stages_per_rank, 2);
  EXPECT_EQ(v.makespan, 51);
  EXPECT_EQ(v.peak_stash, 4);
  EXPECT_LT(figures_of(comparison, "seq-1f1b").makespan, 66);  // two slices halve the bubble
  EXPECT_GE(comparison.lower_bound, 8 * 6);
}

TEST(ScheduleComparison, HasNothingThatBeatsSearched) {
  for (const int microbatches : {1, 6, 8}) {
    for (const double memory : {0.0, 5.0}) {
      for (const int stages_per_rank : {0, 1, 2}) {
        ScheduleShape shape{4, std::max(stages_per_rank, 1), microbatches};
        shape.memory_limit = memory;
        const ScheduleComparison comparison = stages_per_rank == 0
                                                  ? compare_schedules_of_one_network(shape, {1, 1.5, 0.5}, 0.1)
                                                  : compare_schedules(shape, {1, 1.5, 0.5}, 0.1);
        const double best = comparison.ranked.front().makespan;
        EXPECT_NEAR(figures_of(comparison, "searched").makespan, best, 1e-9) << microbatches << " " << memory;
        EXPECT_LE(comparison.lower_bound, best * (1 + 1e-9));
      }
    }
  }
}

TEST(ScheduleComparison, CountsTheWeightsOfBothDirections) {
  const ScheduleComparison comparison = compare_schedules({4, 1, 8}, {1, 1, 1}, 0);
  EXPECT_EQ(figures_of(comparison, "1f1b").weight_copies, 1);
  EXPECT_EQ(figures_of(comparison, "dualpipe").weight_copies, 2);
}

TEST(ScheduleComparison, PutsWhatKeepsTooMuchBehind) {
  ScheduleShape shape{4, 1, 8};
  shape.memory_limit = 4;
  const ScheduleComparison comparison = compare_schedules_of_one_network(shape, {1, 1, 1}, 0);
  EXPECT_TRUE(comparison.ranked.front().fits);
  EXPECT_FALSE(figures_of(comparison, "zb-h2").fits);  // keeps 7
  EXPECT_FALSE(figures_of(comparison, "gpipe").fits);
  EXPECT_TRUE(figures_of(comparison, "1f1b").fits);
  EXPECT_THAT(to_text(comparison), HasSubstr("gpipe !"));
  EXPECT_LE(longest_line(to_text(comparison)), max_columns);
}

TEST(ScheduleComparison, SaysWhyItLeavesSchedulesOut) {
  const std::string text = to_text(compare_schedules({4, 2, 10}, {1, 1, 1}, 0));
  EXPECT_THAT(text, HasSubstr("not with this shape:\n"));
  EXPECT_THAT(text, HasSubstr("  1f1b: needs one stage a rank, got 2\n"));
  EXPECT_THAT(text, HasSubstr("  interleaved-1f1b: needs M divisible by P = 4: 8 or 12, got 10; or groups of 5\n"));
  EXPECT_THAT(text, HasSubstr("inference *"));
  EXPECT_LE(longest_line(text), max_columns);
  const Json json = to_json(compare_schedules({4, 2, 10}, {1, 1, 1}, 0));
  EXPECT_EQ(json["refused"][1]["name"], "1f1b");
  EXPECT_EQ(json["schedules"].back()["synchronous_training"], false);
}

}  // namespace
}  // namespace stagecraft
