#include "reports/schedule_grid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

std::string grid(const ComputeSchedule& schedule, const StageTimes& times, const ScheduleGridOptions& options = {},
                 double message = 0) {
  const std::vector<StageTimes> all(static_cast<std::size_t>(schedule.stages), times);
  return format_schedule_grid(schedule, clock_schedule(schedule, all, message), options);
}

TEST(ScheduleGrid, DrawsTheTextbooksPictures) {
  EXPECT_EQ(grid(make_schedule("1f1b", {4, 1, 6}), {2, 1, 1}),
            "rank 0 | F0 F1 F2 F3 .  .  .  B0 F4 B1 F5 B2 .  B3 .  B4 .  B5\n"
            "rank 1 | .  F0 F1 F2 .  .  B0 F3 B1 F4 B2 F5 B3 .  B4 .  B5 .\n"
            "rank 2 | .  .  F0 F1 .  B0 F2 B1 F3 B2 F4 B3 F5 B4 .  B5 .  .\n"
            "rank 3 | .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 .  .  .\n");
}

TEST(ScheduleGrid, DrawsLongActionsAndMessagesInProportion) {
  EXPECT_EQ(grid(make_schedule("gpipe", {2, 1, 1}), {1, 1, 1}, {}, 1),
            "rank 0 | F0 .  .  .  .  .  B0 --\n"
            "rank 1 | .  .  F0 B0 -- .  .  .\n");
  // Cells of half a forward, so that a message of half a forward shows.
  EXPECT_EQ(grid(make_schedule("inference", {2, 1, 1}), {2, 2, 2}, {}, 1),
            "rank 0 | F0 -- .  .  .\n"
            "rank 1 | .  .  .  F0 --\n");
}

TEST(ScheduleGrid, NamesStagesWhereARankHasSeveral) {
  EXPECT_EQ(grid(make_schedule("inference", {2, 2, 2}), {}),
            "rank 0 | 0F0 0F1 2F0 2F1 .\n"
            "rank 1 | .   1F0 1F1 3F0 3F1\n");
}

TEST(ScheduleGrid, MarksOverlappedPairs) {
  ComputeSchedule schedule = test::computes(1, 2, {"0F0 0F1 0B0 0B1"});
  schedule.ranks[0][1].overlapped = true;
  EXPECT_EQ(grid(schedule, {2, 1, 1}), "rank 0 | F0  F1& B0  B1\n");
}

TEST(ScheduleGrid, LosesNoActionWhereTimesAreNoWholeCells) {
  const std::string text = grid(make_schedule("zb-h1", {2, 1, 4}), {1, 1.37, 0.61}, {.columns = 0});
  for (const char* action : {"F0", "F3", "I0", "I3", "W0", "W3"}) {
    EXPECT_THAT(text, testing::ContainsRegex(std::string("rank 0 [^\n]*") + action)) << text;
    EXPECT_THAT(text, testing::ContainsRegex(std::string("rank 1 [^\n]*") + action)) << text;
  }
}

TEST(ScheduleGrid, SaysWhatItLeavesOut) {
  EXPECT_EQ(grid(make_schedule("gpipe", {3, 1, 4}), {2, 1, 1}, {.columns = 21, .rows = 2}),
            "rank 0 | F0 F1 F2 F3\n"
            "rank 1 | .  F0 F1 F2\n"
            "... ranks 2 to 2\n"
            "... shows 8 of 24 units of time\n");
}

TEST(ScheduleGrid, ColoursOnlyOnRequest) {
  const ComputeSchedule schedule = make_schedule("zb-h1", {1, 1, 1});
  EXPECT_EQ(grid(schedule, {}), "rank 0 | F0 I0 W0\n");
  const std::string coloured = grid(schedule, {}, {.colour = true});
  EXPECT_EQ(coloured, "rank 0 | \x1b[30;48;5;110mF0\x1b[0m \x1b[30;48;5;222mI0\x1b[0m \x1b[30;48;5;115mW0\x1b[0m\n");
}

}  // namespace
}  // namespace stagecraft
