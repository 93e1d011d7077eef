#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/schedule/checker.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::lowered;

std::string first_fault(const LoweredSchedule& schedule, int buffers = 1) {
  const auto faults = check(schedule, buffers);
  return faults.empty() ? "" : faults.front().message;
}

const char* const sender = "0F0 0SEND_F0 0RECV_B0 0B0 0STEP";
const char* const receiver = "1RECV_F0 1F0 1B0 1SEND_B0 1STEP";

TEST(LoweredChecker, AcceptsWhatCanRun) {
  EXPECT_EQ(first_fault(lowered(2, 1, {sender, receiver})), "");
  EXPECT_EQ(first_fault(lowered(2, 1, {sender, receiver}), 0), "");
}

TEST(LoweredChecker, WantsBothHalvesOfEveryMessage) {
  EXPECT_EQ(first_fault(lowered(2, 1, {"0F0 0SEND_F0 0RECV_B0 0B0 0STEP", "1RECV_F0 1F0 1B0 1STEP"})),
            "rank 0, position 2: 0RECV_B0: rank 1 lacks its counterpart 1SEND_B0");
  EXPECT_EQ(first_fault(lowered(2, 1, {sender, "1F0 1RECV_F0 1B0 1SEND_B0 1STEP"})),
            "rank 1, position 0: 1F0: needs 1RECV_F0 before it");
  EXPECT_EQ(first_fault(lowered(2, 1, {"0SEND_F0 0F0 0RECV_B0 0B0 0STEP", receiver})),
            "rank 0, position 1: 0F0: needs 0SEND_F0 after it");
  EXPECT_EQ(first_fault(lowered(2, 1, {"0F0 1F0 0SEND_F0 1B0 0B0 0STEP 1STEP"})),
            "rank 0, position 2: 0SEND_F0: stage 1 is on this rank, too; no message is needed");
  EXPECT_EQ(first_fault(lowered(1, 1, {"0F0 0SEND_F0 0B0 0STEP"})),
            "rank 0, position 1: 0SEND_F0: there is no stage 1");
  EXPECT_EQ(first_fault(lowered(2, 1, {"0F0 0SEND_F0 1RECV_F0 0RECV_B0 0B0 0STEP", receiver})),
            "rank 0, position 2: 1RECV_F0: stage 1 is not on this rank");
}

TEST(LoweredChecker, WantsReceivesInTheOrderOfTheSends) {
  EXPECT_EQ(first_fault(lowered(2, 2,
                                {"0F1 0SEND_F1 0F0 0SEND_F0 0RECV_B0 0B0 0RECV_B1 0B1 0STEP",
                                 "1RECV_F0 1F0 1RECV_F1 1F1 1B0 1SEND_B0 1B1 1SEND_B1 1STEP"})),
            "rank 1, position 0: 1RECV_F0: rank 0 sends 0SEND_F1 to this rank first; messages pair by order");
}

TEST(LoweredChecker, WantsSumsAfterGradientsAndStepsAfterSums) {
  EXPECT_EQ(first_fault(lowered(1, 1, {"0F0 0B0"})), "rank 0: 0STEP is missing");
  EXPECT_EQ(first_fault(lowered(1, 1, {"0F0 0STEP 0B0"})),
            "rank 0, position 1: 0STEP: stage 0 still makes or sums gradients after it");
  EXPECT_EQ(first_fault(lowered(1, 1, {"0F0 0REDUCE_GRAD 0B0 0STEP"})),
            "rank 0, position 1: 0REDUCE_GRAD: stage 0 still makes weight gradients after it");
  EXPECT_EQ(first_fault(lowered(2, 1, {"0F0 0SEND_F0 0RECV_B0 0B0 0REDUCE_TIED 0STEP", receiver})),
            "REDUCE_TIED needs both the first and the last stage; only one has it");
  EXPECT_EQ(first_fault(lowered(1, 1, {"0F0 0B0 0STEP 0STEP"})), "rank 0, position 3: 0STEP: appears a second time");
}

TEST(LoweredChecker, FindsThatOneFOneBDeadlocksWhereSendsWaitForTheirReceive) {
  const LoweredSchedule schedule = lower(make_schedule("1f1b", {2, 1, 3}), {});
  EXPECT_EQ(first_fault(schedule, 1), "");
  EXPECT_EQ(first_fault(schedule, 0),
            "rank 0, position 3: 0SEND_F1: waits for ever: needs 1RECV_F1, which rank 1 has at position 4, but that "
            "waits at position 3, 1SEND_B0");
}

TEST(LoweredChecker, CountsTheBuffersOfEachPair) {
  // Rank 0 sends all activations before it takes a gradient; rank 1 wants to hand back a gradient after each forward.
  LoweredSchedule schedule = lower(make_schedule("gpipe", {2, 1, 4}), {});
  schedule.ranks[1] = lower(make_schedule("1f1b", {2, 1, 4}), {}).ranks[1];
  EXPECT_EQ(first_fault(schedule, 2), "");
  EXPECT_EQ(first_fault(schedule, 1),
            "rank 0, position 7: 0SEND_F3: waits for ever: 1 messages are unreceived; needs 1RECV_F3, which rank 1 has "
            "at position 12, but that waits at position 7, 1SEND_B1");
}

TEST(LoweredChecker, ReportsAFaultOfTheComputationsFirst) {
  EXPECT_EQ(first_fault(lowered(1, 1, {"0B0 0F0 0STEP"})), "rank 0, position 0: 0B0: needs 0F0 before it");
}

}  // namespace
}  // namespace stagecraft
