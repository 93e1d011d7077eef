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

TEST(TorchCsv, WritesOverlappedPairsAsOneCell) {
  ComputeSchedule schedule = test::computes(2, 2, {"0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1"});
  schedule.ranks[0][1].overlapped = true;
  EXPECT_EQ(to_torch_csv(schedule), "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n");
  EXPECT_EQ(from_torch_csv(to_torch_csv(schedule), "s.csv"), schedule);
  EXPECT_EQ(from_torch_csv("0F0, ( 0F1 ; 0B0 )OVERLAP_F_B,0B1\n1F0,1B0,1F1,1B1\n", "s.csv"), schedule);
  const std::string comms = to_torch_csv(schedule, TorchFormat::compute_comms);
  EXPECT_THAT(comms, HasSubstr("(0F1;0B0)OVERLAP_F_B,0SEND_F1"));
  EXPECT_EQ(read_torch_csv(comms, "s.csv").computes, schedule);
}

TEST(TorchCsv, ReadsBackBothFormatsOfEveryScheduleThatItWrites) {
  int written = 0, refused = 0;
  test::for_each_legal_shape(4, 3, 8, [&](const ScheduleKind& kind, const ScheduleShape& shape) {
    ComputeSchedule schedule = make_schedule(kind.name, shape);
    schedule.name = "custom";
    std::string text;
    try {
      text = to_torch_csv(schedule);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("cannot be a file of torch's: "));
      ++refused;
      return;
    }
    ++written;
    EXPECT_EQ(from_torch_csv(text, "s.csv"), schedule) << kind.name;
    const TorchSchedule read = read_torch_csv(to_torch_csv(schedule, TorchFormat::compute_comms), "s.csv");
    EXPECT_EQ(read.computes, schedule) << kind.name;
    if (shape.ranks == 1) return;  // no message says that the file is compute_comms
    ASSERT_TRUE(read.lowered) << kind.name;
    EXPECT_EQ(*read.lowered, lower(schedule, {.data_parallel = true}, Receives::as_sent)) << kind.name;
  });
  EXPECT_GT(written, 400);
  EXPECT_GT(refused, 50);
}

TEST(TorchCsv, CarriesShardingThroughBothWays) {
  const std::string text =
      "0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0RESHARD,0REDUCE_GRAD\n1UNSHARD,1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD\n";
  const TorchSchedule read = read_torch_csv(text, "s.csv");
  EXPECT_EQ(read.computes, test::computes(2, 1, {"0F0 0B0", "1F0 1B0"}));
  ASSERT_TRUE(read.lowered);
  EXPECT_EQ(to_torch_csv(*read.lowered), text);
  // Without messages the file is torch's compute_only with marks that our executors do without.
  const TorchSchedule marked = read_torch_csv("0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD\n", "s.csv");
  EXPECT_EQ(marked.computes, test::computes(1, 1, {"0F0 0B0"}));
  EXPECT_FALSE(marked.lowered);
}

TEST(TorchCsv, RefusesWhatTheFormatCannotSay) {
  const auto refusal = [](const ComputeSchedule& schedule) {
    try {
      to_torch_csv(schedule);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(make_schedule("inference", {2, 1, 2})),
            "schedule 'inference' cannot be a file of torch's: has forwards alone; torch's files have a backward for "
            "each");
  EXPECT_THAT(refusal(make_schedule("pipedream", {2, 1, 2})), HasSubstr("weights while micro-batches are in flight"));
  ComputeSchedule sliced = test::computes(1, 2, {"0F0 0F1 0B1 0B0"});
  sliced.slices = 2;
  EXPECT_THAT(refusal(sliced), HasSubstr("token slices"));
  EXPECT_THAT(refusal(test::computes(2, 2, {"0F0 1F1 1B1 0B0", "0F1 1F0 1B0 0B1"})),
              HasSubstr("stage 0 is on ranks 0 and 1; torch's files have one rank a stage"));
  EXPECT_EQ(message_of("0F0,1F1,1B1,0B0\n0F1,1F0,1B0,0B1\n"),
            "s.csv: stage 0 is on ranks 0 and 1; torch's files have one rank a stage");
}

TEST(TorchCsv, NamesFileLineAndCellOfWhatItCannotRead) {
  EXPECT_THAT(message_of("0F0,0B0\n1F0,1X0\n"), HasSubstr("s.csv: line 2, cell 2: expected an action such as 2F0"));
  EXPECT_THAT(message_of("0F0x,0B0\n"), HasSubstr("line 1, cell 1"));
  EXPECT_THAT(message_of("0F0,0STEP\n"), HasSubstr("s.csv: line 1, cell 2: expected an action"));
  EXPECT_THAT(message_of("0F0,0B0,0SEND_F0\n"), HasSubstr("s.csv: rank 0, position 2: 0SEND_F0: there is no stage 1"));
  EXPECT_THAT(message_of("0F0,0SEND_F0,0B0\n1F0,1B0\n"),
              HasSubstr("s.csv: rank 0, position 1: 0SEND_F0: rank 1 lacks"));
  EXPECT_THAT(message_of("(0F1;0I0)OVERLAP_F_B\n"), HasSubstr("cell 1: expected an F and then a B"));
  EXPECT_THAT(message_of("(0F1)OVERLAP_F_B\n"), HasSubstr("cell 1: expected an action"));
  EXPECT_THAT(message_of("(0F1;0B0)OVERLAP\n"), HasSubstr("cell 1: expected an action"));
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
  EXPECT_THAT(message_of(std::string().append(10'000'001, ',')), HasSubstr("at most 10000000 cells"));
  EXPECT_THAT(message_of("2147483647F0,0B0\n"), HasSubstr("below 10000000"));
  EXPECT_THAT(message_of("9999999F9999999\n"), HasSubstr("at least 200000000000000 actions; has 1"));
}

}  // namespace
}  // namespace stagecraft
