#include "models/schedule/clock.hpp"

#include <gtest/gtest.h>

#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

TEST(Clock, RunsAChainOfStagesWithItsMessages) {
  const ComputeSchedule schedule = test::computes(2, 1, {"0F0 0B0", "1F0 1I0 1W0"});
  const std::vector<StageTimes> times{{1, 2, 3}, {4, 5, 6}};
  const ClockedSchedule clock = clock_schedule(schedule, times, 10);
  EXPECT_EQ(clock.spans[1][0].start, 11);
  EXPECT_EQ(clock.spans[0][1].start, 11 + 4 + 5 + 10);  // W is not waited for
  EXPECT_EQ(clock.makespan, 11 + 4 + 5 + 10 + 5);
  EXPECT_EQ(clock.longest_span, 35);
  EXPECT_EQ(clock.work, 21);
  EXPECT_EQ(clock.busiest, 15);
}

TEST(Clock, HasTheClosedFormsOfGPipeAndOneFOneB) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 20; ++m) {
      const std::vector<StageTimes> times(static_cast<std::size_t>(p), {2, 3, 4});
      EXPECT_EQ(clock_schedule(make_schedule("gpipe", {p, 1, m}), times).makespan, (m + p - 1) * 9);
      EXPECT_EQ(clock_schedule(make_schedule("1f1b", {p, 1, m}), times).makespan, (m + p - 1) * 9);
      const int round_trips = m == 1 ? 2 * (p - 1) : 2 * (p - 1) * (1 + (m - 2) / p) + 2 * ((m - 2) % p);
      EXPECT_EQ(clock_schedule(make_schedule("1f1b", {p, 1, m}), times, 5).makespan,
                (m + p - 1) * 9 + (p > 1 ? round_trips * 5 : 0));
    }
  }
}

TEST(Clock, RunsAnOverlappedPairAsOneBlock) {
  ComputeSchedule schedule = test::computes(2, 2, {"0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1"});
  EXPECT_EQ(clock_schedule(schedule).makespan, 9);
  schedule.ranks[0][1].overlapped = true;
  // 0F1 waits for 1B0, and leaves only when 0B0 has run: 0..1, 1..2, 2..4, 4..7, 7..8, 8..10, 10..12.
  const ClockedSchedule clock = clock_schedule(schedule);
  EXPECT_EQ(clock.spans[0][1].start, 4);
  EXPECT_EQ(clock.spans[0][2].end, 7);
  EXPECT_EQ(clock.spans[1][2].start, 7);
  EXPECT_EQ(clock.makespan, 12);
}

TEST(Clock, SendsEachMicrobatchOfAStageOnTwoRanksItsWay) {
  const ComputeSchedule schedule = test::computes(2, 2, {"0F0 1F1 1B1 0B0", "0F1 1F0 1B0 0B1"});
  const ClockedSchedule clock = clock_schedule(schedule);
  EXPECT_EQ(clock.makespan, 6);
  EXPECT_EQ(clock.idle_share(), 0);
}

}  // namespace
}  // namespace stagecraft
