// Chimera, BitPipe and DualPipe: the closed forms of their headers.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::text;

// Backwards as long as forwards, and twice as long.
std::vector<StageTimes> short_backward(int stages) { return {static_cast<std::size_t>(stages), {1, 1, 0}}; }

double makespan(const ComputeSchedule& schedule, const std::vector<StageTimes>& times = {}) {
  return clock_schedule(schedule, times).makespan;
}

ComputeSchedule without_blocks(ComputeSchedule schedule) {
  for (auto& actions : schedule.ranks) {
    for (Action& action : actions) action.overlapped = false;
  }
  return schedule;
}

TEST(Chimera, RunsTwo1F1BPipelinesInOppositeDirections) {
  const ComputeSchedule schedule = make_schedule("chimera", {4, 1, 4});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 3F2 3B2 3F3 3B3 0B0 0B1");
  EXPECT_EQ(text(schedule.ranks[1]), "1F0 2F2 1F1 2F3 2B2 1B0 2B3 1B1");
  EXPECT_EQ(text(schedule.ranks[3]), "0F2 0F3 3F0 3B0 3F1 3B1 0B2 0B3");
}

TEST(Chimera, HasItsClosedFormForEveryEvenNumberOfMicrobatches) {
  for (int p = 2; p <= 12; p += 2) {
    for (int m = 2; m <= 40; m += 2) {
      const int whole_units = (m - 1) / p;
      const int rest = m - whole_units * p;
      const ComputeSchedule schedule = make_schedule("chimera", {p, 1, m});
      EXPECT_EQ(makespan(schedule, short_backward(p)), 2 * p * (whole_units + 1) + rest - 2) << p << " " << m;
      if (m % p == 0) {
        EXPECT_EQ(makespan(schedule, short_backward(p)), 2 * m + p - 2);
      }
    }
  }
}

TEST(Chimera, WithBackwardsTwiceAsLongHasItsClosedFormForOneUnitOnly) {
  for (int p = 2; p <= 12; p += 2) EXPECT_EQ(makespan(make_schedule("chimera", {p, 1, p})), 3 * p + 2 * (p - 2));
  EXPECT_EQ(makespan(make_schedule("chimera", {4, 1, 8})), 30);
  EXPECT_EQ(makespan(make_schedule("chimera", {8, 1, 16})), 66);
}

TEST(Chimera, KeepsAlmostAsManyMicrobatchesOnEveryRank) {
  for (int p = 2; p <= 12; p += 2) {
    for (int m = p; m <= 4 * p; m += p) {
      const std::vector<int> kept = peak_in_flight_by_rank(make_schedule("chimera", {p, 1, m}));
      for (int r = 0; r < p; ++r) EXPECT_EQ(kept[static_cast<std::size_t>(r)], p / 2 + 1 + std::min(r, p - 1 - r));
    }
  }
}

TEST(BitPipe, RunsTwoVsInOppositeDirections) {
  const ComputeSchedule schedule = make_schedule("bitpipe", {4, 2, 4});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 3F2 4F2 3F3 4F3 7F0 7B0 7F1 7B1 4B2 3B2 4B3 3B3 0B0 0B1");
  EXPECT_EQ(text(schedule.ranks[1]), "1F0 2F2 1F1 2F3 5F2 6F0 5F3 6F1 6B0 5B2 6B1 5B3 2B2 1B0 2B3 1B1");
}

TEST(BitPipe, HasHalfTheBubbleOfChimera) {
  for (int p = 4; p <= 12; p += 2) {
    for (int m = p; m <= 4 * p; m += p) {
      const ComputeSchedule schedule = make_schedule("bitpipe", {p, 2, m});
      EXPECT_EQ(makespan(schedule, short_backward(2 * p)), 4 * m + p - 2);
      if (m == p) {
        EXPECT_EQ(makespan(schedule), 6 * m + 2 * (p - 2));
      }
      const std::vector<int> kept = peak_in_flight_by_rank(schedule);
      for (int r = 0; r < p; ++r) EXPECT_EQ(kept[static_cast<std::size_t>(r)], p + p / 2 + 1 + std::min(r, p - 1 - r));
    }
  }
}

TEST(DualPipe, BlocksForwardsWithTheBackwardsBehindThem) {
  const ComputeSchedule schedule = make_schedule("dualpipe", {4, 1, 8});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 3F4 3I4 3W4 3F5 0F3 3B5 3F6 0B0 3B6 3F7 0B1 3B7 0I2 0W2 0I3 0W3");
  EXPECT_EQ(text(schedule.ranks[1]), "1F0 2F4 1F1 2F5 1F2 2B4 2F6 1B0 1F3 2B5 2F7 1B1 2B6 1B2 2I7 1I3 2W7 1W3");
  std::string blocked;
  for (const Action& action : schedule.ranks[1]) blocked += action.overlapped ? to_string(action) + " " : "";
  EXPECT_EQ(blocked, "2F6 1F3 2F7 ");
}

TEST(DualPipe, HasTheIdleTimeOfItsAuthorsWithEqualTimes) {
  for (int p = 2; p <= 12; p += 2) {
    for (int m = 2 * p; m <= 2 * p + 16; m += 2) {
      const ComputeSchedule schedule = make_schedule("dualpipe", {p, 1, m});
      // (P/2-1)(t_FB + b - 3w) with t_FB = 3, b = 2, w = 1.
      EXPECT_EQ(makespan(schedule), 3 * m + (p / 2 - 1) * 2) << p << " " << m;
      EXPECT_EQ(peak_in_flight_by_rank(schedule), std::vector<int>(static_cast<std::size_t>(p), p + 1));
    }
  }
}

TEST(DualPipeV, HasTheIdleTimeOfItsAuthorsWithBlocksAndHalfOfItWithout) {
  for (int p = 1; p <= 10; ++p) {
    for (int m = 2 * p; m <= 2 * p + 12; ++m) {
      const ComputeSchedule schedule = make_schedule("dualpipe-v", {p, 2, m});
      EXPECT_EQ(makespan(schedule), 6 * m + 2 * (p - 1)) << p << " " << m;
      EXPECT_EQ(makespan(without_blocks(schedule)), 6 * m + (p - 1)) << p << " " << m;
      EXPECT_EQ(peak_in_flight_by_rank(schedule), std::vector<int>(static_cast<std::size_t>(p), 2 * p + 1));
    }
  }
}

}  // namespace
}  // namespace stagecraft
