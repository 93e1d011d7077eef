// Schedules that are planned rather than written down: zb-1p, zb-2p, zb-v-auto, v-half, v-min.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::text;

int highest(const std::vector<int>& numbers) { return *std::max_element(numbers.begin(), numbers.end()); }

ScheduleShape shape_with(int ranks, int stages_per_rank, int microbatches, StageTimes times, double message) {
  ScheduleShape shape{ranks, stages_per_rank, microbatches};
  shape.times.assign(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(stages_per_rank), times);
  shape.message = message;
  return shape;
}

// A setting of Zero Bubble's Table 9 and its bubble rates in Table 5 (Qi et al. 2024, arXiv 2401.10241).
struct PaperRow {
  int ranks, microbatches;
  StageTimes times;
  double message;
  double rate_1p, rate_2p;
};
constexpr std::array<PaperRow, 8> paper_rows{{
    {8, 24, {18.522, 18.086, 9.337}, 0.601, 0.1585, 0.0433},
    {8, 64, {18.546, 18.097, 9.321}, 0.762, 0.0674, 0.0026},
    {8, 24, {29.718, 29.444, 19.927}, 0.527, 0.1323, 0.0029},
    {8, 64, {29.935, 29.621, 19.388}, 0.535, 0.0554, 0.0010},
    {16, 48, {11.347, 11.248, 8.132}, 0.377, 0.1397, 0.0066},
    {16, 128, {11.325, 11.308, 8.109}, 0.378, 0.0576, 0.0028},
    {32, 96, {10.419, 10.207, 7.715}, 0.408, 0.1421, 0.0038},
    {32, 256, {10.402, 10.248, 7.698}, 0.460, 0.0594, 0.0018},
}};

double rounded(double rate) { return std::round(rate * 1e4) / 1e4; }

TEST(ZeroBubbleAuto, GivesThePapersBubbleRatesToAllFourDigits) {
  for (const PaperRow& row : paper_rows) {
    const ScheduleShape shape = shape_with(row.ranks, 1, row.microbatches, row.times, row.message);
    const auto rate = [&](const char* name) {
      return clock_schedule(make_schedule(name, shape), shape.times, shape.message).span_bubble();
    };
    EXPECT_EQ(rounded(rate("zb-1p")), row.rate_1p) << row.ranks << " " << row.microbatches;
    EXPECT_EQ(rounded(rate("zb-2p")), row.rate_2p) << row.ranks << " " << row.microbatches;
  }
}

TEST(ZeroBubbleAuto, WithEqualTimesHasTheSpanOfTheHandcraftedOnes) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 2 * p; m <= 2 * p + 16; m += 3) {
      EXPECT_EQ(clock_schedule(make_schedule("zb-1p", {p, 1, m})).longest_span, 3 * m + (p - 1)) << p << " " << m;
      const ClockedSchedule twice = clock_schedule(make_schedule("zb-2p", {p, 1, m}));
      EXPECT_EQ(twice.longest_span, 3 * m) << p << " " << m;
      EXPECT_EQ(twice.makespan, 3 * m + p - 1) << p << " " << m;
    }
  }
}

// 37 parts from F, of which I frees 21 and W 16.
double most_kept(const ComputeSchedule& schedule) {
  int most = 0;
  for (const auto& actions : schedule.ranks) {
    int kept = 0;
    for (const Action& action : actions) {
      kept += action.kind == ActionKind::forward ? 37 : action.kind == ActionKind::backward_input ? -21 : -16;
      most = std::max(most, kept);
    }
  }
  return most / 37.0;
}

TEST(ZeroBubbleAuto, KeepsWithinItsMemory) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 20; ++m) {
      EXPECT_LE(most_kept(make_schedule("zb-1p", {p, 1, m})), p);
      EXPECT_LE(most_kept(make_schedule("zb-2p", {p, 1, m})), 2 * p);
      for (const double limit : {1.0, 1.5, 2.0, 3.7}) {
        ScheduleShape shape{p, 1, m};
        shape.memory_limit = limit;
        const ComputeSchedule schedule = make_schedule("zb-1p", shape);
        EXPECT_LE(most_kept(schedule), limit);
        EXPECT_TRUE(check(schedule).empty());
      }
    }
  }
}

TEST(ZeroBubbleAuto, RunsWithAnyUnequalTimes) {
  for (int seed = 1; seed <= 200; ++seed) {
    ScheduleShape shape{1 + seed % 7, 1, 1 + seed % 11};
    for (int s = 0; s < shape.ranks; ++s) {
      shape.times.push_back({1.0 + seed * (s + 3) % 5, 1.0 + seed * (s + 5) % 7, 1.0 + seed * (s + 2) % 4});
    }
    shape.message = seed % 3;
    for (const char* name : {"zb-1p", "zb-2p"}) {
      EXPECT_TRUE(check(make_schedule(name, shape)).empty()) << name << " seed " << seed;
    }
  }
}

TEST(ZeroBubbleVAuto, HasNoBubbleWithEqualTimes) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 2 * p - 1; m <= 2 * p + 12; m += 3) {
      const ComputeSchedule schedule = make_schedule("zb-v-auto", {p, 2, m});
      const ClockedSchedule clocked = clock_schedule(schedule);
      EXPECT_EQ(clocked.longest_span, 6 * m) << p << " " << m;
      EXPECT_EQ(clocked.makespan, 6 * m + p - 1) << p << " " << m;
      EXPECT_LE(highest(peak_in_flight_by_rank(schedule)), 2 * p);
    }
  }
}

TEST(ZeroBubbleVAuto, KeepsWithinAnyLimitThatVMinKeeps) {
  for (int p = 1; p <= 8; ++p) {
    for (const int m : {1, 2, 5, 2 * p, 3 * p + 1}) {
      for (int limit = (p + 4) / 3; limit <= 2 * p; ++limit) {
        ScheduleShape shape = shape_with(p, 2, m, {3, 4, 2}, 1);
        shape.memory_limit = limit;
        const ComputeSchedule schedule = make_schedule("zb-v-auto", shape);
        EXPECT_TRUE(check(schedule).empty());
        EXPECT_LE(highest(peak_in_flight_by_rank(schedule)), 2 * limit) << p << " " << m << " " << limit;
      }
    }
  }
}

TEST(ZeroBubbleVAuto, RunsWithAnyUnequalTimes) {
  for (int seed = 1; seed <= 200; ++seed) {
    ScheduleShape shape{1 + seed % 7, 2, 1 + seed % 11};
    for (int s = 0; s < 2 * shape.ranks; ++s) {
      shape.times.push_back({1.0 + seed * (s + 3) % 5, 1.0 + seed * (s + 5) % 7, 1.0 + seed * (s + 2) % 4});
    }
    shape.message = seed % 3;
    EXPECT_TRUE(check(make_schedule("zb-v-auto", shape)).empty()) << "seed " << seed;
  }
}

TEST(VHalf, TradesABubbleForHalfTheMemory) {
  for (int p = 2; p <= 12; ++p) {
    for (int m = 2 * p; m <= 2 * p + 9; m += 3) {
      const ComputeSchedule schedule = make_schedule("v-half", {p, 2, m});
      const int idle = p == 2 ? 1 : p % 2 == 0 ? 3 * p - 7 : 3 * p - 4;
      EXPECT_EQ(clock_schedule(schedule).longest_span, 6 * m + idle) << p << " " << m;
      EXPECT_EQ(highest(peak_in_flight_by_rank(schedule)), 2 * ((p + 2) / 2)) << p << " " << m;
    }
  }
}

TEST(VMin, TradesALargerBubbleForAThirdOfTheMemory) {
  for (int p = 2; p <= 12; ++p) {
    for (int m = 2 * p; m <= 2 * p + 9; m += 3) {
      const ComputeSchedule schedule = make_schedule("v-min", {p, 2, m});
      const int idle = p % 3 == 0 ? 4 * p - 7 : 4 * p - 5;
      EXPECT_EQ(clock_schedule(schedule).longest_span, 6 * m + idle) << p << " " << m;
      EXPECT_EQ(highest(peak_in_flight_by_rank(schedule)), 2 * ((p + 4) / 3)) << p << " " << m;
    }
  }
}

TEST(VMin, FollowsTheSqueezedBuildingBlock) {
  const ComputeSchedule schedule = make_schedule("v-min", {4, 2, 4});
  EXPECT_EQ(text(schedule.ranks[3]),
            "3F0 4F0 3F1 4F1 4I0 3I0 4W0 3W0 3F2 4F2 4I1 3I1 4W1 3W1 3F3 4F3 4I2 3I2 4W2 3W2 4I3 3I3 4W3 3W3");
}

}  // namespace
}  // namespace stagecraft
