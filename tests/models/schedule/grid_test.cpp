#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "models/schedule/checker.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

TEST(Grid, ShowsRanksAsRowsAndMarksTheFault) {
  const ComputeSchedule schedule = test::computes(2, 1, {"0F0 0B0", "1B0 1F0"});
  EXPECT_EQ(format_grid(schedule, check(schedule)),
            "rank 0 | 0F0  0B0\n"
            "rank 1 |>1B0< 1F0\n");
}

TEST(Grid, CutsWideAndHighSchedulesAroundTheFault) {
  ComputeSchedule schedule = make_schedule("gpipe", {100, 1, 1000});
  std::swap(schedule.ranks[50][500], schedule.ranks[50][1500]);
  const std::string grid = format_grid(schedule, check(schedule));
  EXPECT_THAT(grid, testing::HasSubstr(">50B500<"));
  EXPECT_THAT(grid, testing::HasSubstr("... ranks 0 to 37\n"));
  std::istringstream lines(grid);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) EXPECT_LE(line.size(), 100U) << line;
  EXPECT_EQ(count, 26);
}

}  // namespace
}  // namespace stagecraft
