// Hanayo and Seq1F1B: the closed forms of their headers.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::text;

TEST(Hanayo, GoesDownTheRanksAndUpAgain) {
  const ComputeSchedule schedule = make_schedule("hanayo", {3, 2, 3});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 5F0 5B0 5F1 5B1 5F2 5B2 0B0 0B1 0B2");
  EXPECT_EQ(text(schedule.ranks[2]), "2F0 3F0 2F1 3F1 2F2 3F2 3B0 2B0 3B1 2B1 3B2 2B2");
}

TEST(Hanayo, WithOneWaveAndAMicrobatchARankIdlesLessThanThePaperSays) {
  for (int p = 1; p <= 8; ++p) {
    const ClockedSchedule clocked = clock_schedule(make_schedule("hanayo", {p, 2, p}));
    EXPECT_EQ(clocked.makespan, 6 * p + 4 * (p - 1));
    EXPECT_LE(clocked.idle_share(), (2.0 * p - 2) / (3.0 * p + p - 1));
  }
}

TEST(Hanayo, WithMoreWavesIsWithinATenthOfThePapersIdleShare) {
  for (int p = 2; p <= 8; ++p) {
    for (int waves = 2; waves <= 4; ++waves) {
      const double paper = (2.0 * p - 2) / (3.0 * p * waves + p - 1);
      EXPECT_NEAR(clock_schedule(make_schedule("hanayo", {p, 2 * waves, p})).idle_share(), paper, 0.1 * paper)
          << p << " " << waves;
    }
  }
}

TEST(Hanayo, KeepsNoMoreThanItsMemoryLimit) {
  for (int p = 1; p <= 8; ++p) {
    for (int limit = 1; limit <= 2 * p; ++limit) {
      ScheduleShape shape{p, 4, 20};
      shape.memory_limit = limit;
      for (const int kept : peak_in_flight_by_rank(make_schedule("hanayo", shape))) EXPECT_LE(kept, 4 * limit);
    }
  }
}

TEST(Seq1F1B, RunsSlicesForwardInOrderAndBackwardInReverse) {
  ScheduleShape shape{3, 1, 2};
  shape.slices = 3;
  const ComputeSchedule schedule = make_schedule("seq-1f1b", shape);
  EXPECT_EQ(schedule.slices, 3);
  EXPECT_EQ(schedule.microbatches, 6);
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 0F3 0F4 0B2 0F5 0B1 0B0 0B5 0B4 0B3");
  EXPECT_EQ(text(schedule.ranks[2]), "2F0 2F1 2F2 2B2 2F3 2B1 2F4 2B0 2F5 2B5 2B4 2B3");
}

TEST(Seq1F1B, HasTheBubbleOf1F1BInSlices) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 12; ++m) {
      for (int k = 1; k <= 4; ++k) {
        ScheduleShape shape{p, 1, m};
        shape.slices = k;
        const ComputeSchedule schedule = make_schedule("seq-1f1b", shape);
        EXPECT_EQ(clock_schedule(schedule).makespan, 3 * (m * k + p - 1)) << p << " " << m << " " << k;
        const std::vector<int> kept = peak_in_flight_by_rank(schedule);
        for (int r = 0; r < p; ++r) EXPECT_EQ(kept[static_cast<std::size_t>(r)], std::min(m * k, p - 1 - r + k));
      }
    }
  }
}

TEST(Seq1F1B, WithOneSliceIs1F1B) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 12; ++m) {
      EXPECT_EQ(make_schedule("seq-1f1b", {p, 1, m}).ranks, make_schedule("1f1b", {p, 1, m}).ranks);
    }
  }
}

}  // namespace
}  // namespace stagecraft
