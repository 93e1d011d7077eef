#include "models/schedule/torch_csv.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/error.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

std::string message_of(std::string_view text) {
  try {
    from_torch_csv(text, "s.csv");
  } catch (const Error& error) {
    return error.kind() == ErrorKind::bad_input ? error.what() : "another kind";
  }
  return "";
}

TEST(TorchCsv, WritesALineARankWithoutEmptyCells) {
  EXPECT_EQ(to_torch_csv(make_schedule("1f1b", {2, 1, 2})), "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n");
}

TEST(TorchCsv, ReadsBackWhatItWrites) {
  ComputeSchedule schedule = make_schedule("gpipe", {3, 1, 5});
  schedule.name = "custom";
  EXPECT_EQ(from_torch_csv(to_torch_csv(schedule), "s.csv"), schedule);
}

TEST(TorchCsv, AcceptsIdleCellsBlanksAndWindowsLineEnds) {
  const ComputeSchedule expected = test::computes(2, 1, {"0F0 0B0", "1F0 1I0 1W0"});
  EXPECT_EQ(from_torch_csv("0F0,,, 0B0\r\n,1F0, 1I0 ,1W0,\r\n", "s.csv"), expected);
  EXPECT_EQ(from_torch_csv("0F0,0B0\n1F0,1I0,1W0", "s.csv"), expected);
}

TEST(TorchCsv, WritesCommunicationWithASumForEveryStageAndWithoutSteps) {
  EXPECT_EQ(to_torch_csv(lower(make_schedule("gpipe", {2, 1, 1}), {})),
            "0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD\n1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD\n");
  EXPECT_EQ(to_torch_csv(lower(make_schedule("gpipe", {1, 1, 1}), {true, false})), "0F0,0B0,0REDUCE_GRAD\n");
}

TEST(TorchCsv, NamesFileLineAndCellOfWhatItCannotRead) {
  EXPECT_THAT(message_of("0F0,0B0\n1F0,1X0\n"), HasSubstr("s.csv: line 2, cell 2: expected an action such as 2F0"));
  EXPECT_THAT(message_of("0F0x,0B0\n"), HasSubstr("line 1, cell 1"));
  EXPECT_THAT(message_of("0F0,0SEND_F0\n"), HasSubstr("s.csv: line 1, cell 2: '0SEND_F0' is communication"));
  EXPECT_THAT(message_of("(0F1;0B0)OVERLAP_F_B\n"), HasSubstr("overlaps a forward with a backward"));
  EXPECT_THAT(message_of("0F0,0B0\n\n"), HasSubstr("s.csv: line 2: expected the actions of a rank, got a blank line"));
  EXPECT_THAT(message_of(""), HasSubstr("empty file"));
  EXPECT_THAT(message_of(std::string("0F0,\0\n", 6)), HasSubstr("got '\\x00'"));
}

TEST(TorchCsv, ShowsTheMarkedGridOfAScheduleThatCannotRun) {
  EXPECT_EQ(message_of("0F0,0B0\n1B0,1F0\n"),
            "s.csv: rank 1, position 0: 1B0: needs 1F0 before it\n"
            "rank 0 | 0F0  0B0\n"
            "rank 1 |>1B0< 1F0\n");
}

TEST(TorchCsv, RefusesSizesBeforeTakingMemory) {
  EXPECT_THAT(message_of(std::string(5000, '\n')), HasSubstr("at most 4096 lines"));
  EXPECT_THAT(message_of(std::string(10'000'001, ',')), HasSubstr("at most 10000000 cells"));
  EXPECT_THAT(message_of("2147483647F0,0B0\n"), HasSubstr("below 10000000"));
  EXPECT_THAT(message_of("9999999F9999999\n"), HasSubstr("at least 200000000000000 actions; has 1"));
}

}  // namespace
}  // namespace stagecraft
