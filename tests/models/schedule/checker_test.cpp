#include "models/schedule/checker.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::computes;

std::string first_fault(const ComputeSchedule& schedule) {
  const auto faults = check(schedule);
  return faults.empty() ? "" : faults.front().message;
}

TEST(Checker, AcceptsAnyOrderThatCanRun) {
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0B0"})), "");
  EXPECT_EQ(first_fault(computes(2, 2, {"0F0 0F1 0I1 0I0 0W0 0W1", "1F0 1F1 1B1 1I0 1W0"})), "");
  EXPECT_EQ(first_fault(computes(4, 1, {"0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"})), "");
}

TEST(Checker, NamesRankPositionAndActionOfAStructuralFault) {
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0F0"})), "rank 0, position 1: 0F0: appears a second time");
  EXPECT_EQ(first_fault(computes(1, 1, {"0B0 0F0"})), "rank 0, position 0: 0B0: needs 0F0 before it");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0W0 0I0"})), "rank 0, position 1: 0W0: needs 0I0 before it");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0B0 0W0"})),
            "rank 0, position 2: 0W0: 0B0 already did the whole backward");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0I0 0B0"})),
            "rank 0, position 2: 0B0: B is the whole backward, but I or W of this micro-batch already ran");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0B0", "0F0 0B0"})),
            "rank 1, position 0: 0F0: micro-batch 0 of stage 0 already runs on rank 0");
  EXPECT_EQ(first_fault(computes(1, 3, {"0F0 0B0", "0F1 0B1", "0F2 0B2"})),
            "rank 2, position 0: 0F2: stage 0 already runs on ranks 0 and 1; a stage has at most two");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 1B0"})), "rank 0, position 1: 1B0: no such stage; stages are 0 to 0");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0B1"})),
            "rank 0, position 1: 0B1: no such micro-batch; micro-batches are 0 to 0");
  EXPECT_EQ(first_fault(computes(1, 1, {"0F0 0STEP"})),
            "rank 0, position 1: 0STEP: only F, B, I and W belong in a compute schedule");
}

TEST(Checker, NamesWhatIsMissing) {
  EXPECT_EQ(first_fault(computes(2, 1, {"0F0 0I0 0W0", "1F0"})), "rank 1: 1B0 is missing");
  EXPECT_EQ(first_fault(computes(2, 1, {"0F0 0I0", "1F0 1B0"})), "rank 0: 0W0 is missing");
  EXPECT_EQ(first_fault(computes(2, 1, {"0F0 0I0 0W0 0F1", ""})),
            "rank 0, position 3: 0F1: no such micro-batch; micro-batches are 0 to 0");
  EXPECT_EQ(first_fault(computes(2, 2, {"0F0 0F1 0I0 0I1 0W0 0W1", "1F0 1B0"})), "rank 1: 1F1 is missing");
}

TEST(Checker, RefusesCountsThatTheActionsCannotFillBeforeTakingMemory) {
  EXPECT_THAT(first_fault(computes(1'000'000'000, 1'000'000'000, {"0F0 0B0"})), testing::HasSubstr("has 2"));
  EXPECT_THAT(first_fault(computes(0, 1, {"0F0 0B0"})), testing::HasSubstr("at least one rank, stage and micro-batch"));
  EXPECT_THAT(first_fault(computes(1, 1, {})), testing::HasSubstr("at least one rank, stage and micro-batch"));
}

TEST(Checker, WantsLossesInMicrobatchOrder) {
  EXPECT_EQ(first_fault(computes(2, 2, {"0F1 0F0 0B0 0B1", "1F1 1F0 1B0 1B1"})),
            "rank 1, position 1: 1F0: the last stage makes the losses in micro-batch order, but 1F1 ran before");
}

TEST(Checker, AcceptsAStageOnTwoRanksWithItsOwnMicrobatchesOnEach) {
  const ComputeSchedule schedule = computes(2, 2, {"0F0 1F1 1B1 0B0", "0F1 1F0 1B0 0B1"});
  EXPECT_EQ(first_fault(schedule), "");
  const Placement placement(schedule);
  EXPECT_TRUE(placement.is_shared(StageId{0}));
  EXPECT_EQ(placement.ranks(StageId{1}), (std::vector<RankId>{RankId{0}, RankId{1}}));
  EXPECT_EQ(placement.rank(StageId{1}, MicrobatchId{0}), RankId{1});
  EXPECT_EQ(placement.rank(StageId{1}, MicrobatchId{1}), RankId{0});
  EXPECT_EQ(first_fault(computes(2, 2, {"0F0 1F1 1B1 0B1", "0F1 1F0 1B0 0B0"})),
            "rank 0, position 3: 0B1: needs 0F1 before it");
  EXPECT_EQ(first_fault(computes(2, 2, {"0F0 1F1 1B0 0B0", "0F1 1F0 1B1 0B1"})),
            "rank 0, position 2: 1B0: needs 1F0 before it");
}

TEST(Checker, WantsForwardsAloneInInference) {
  ComputeSchedule schedule = computes(2, 1, {"0F0", "1F0"});
  EXPECT_THAT(first_fault(schedule), testing::HasSubstr("need a forward and a backward each"));
  schedule.forward_only = true;
  EXPECT_EQ(first_fault(schedule), "");
  schedule = computes(1, 1, {"0F0 0B0"});
  schedule.forward_only = true;
  EXPECT_EQ(first_fault(schedule), "rank 0, position 1: 0B0: inference has forwards only");
}

TEST(Checker, WantsSlicesForwardsInOrderAndBackwardsInReverse) {
  ComputeSchedule schedule = computes(1, 4, {"0F0 0F1 0B1 0B0 0F2 0F3 0B3 0B2"});
  schedule.slices = 2;
  EXPECT_EQ(first_fault(schedule), "");
  schedule.ranks = {test::actions("0F0 0F1 0B0 0B1 0F2 0F3 0B3 0B2")};
  EXPECT_EQ(first_fault(schedule), "rank 0, position 2: 0B0: the slice behind it attends to it: needs 0B1 first");
  schedule.slices = 3;
  EXPECT_EQ(first_fault(schedule), "4 slices of micro-batches do not make micro-batches of 3 slices");
}

TEST(Checker, OverlapsAForwardOnlyWithABackwardBehindIt) {
  ComputeSchedule schedule = computes(1, 2, {"0F0 0F1 0B0 0B1"});
  schedule.ranks[0][1].overlapped = true;
  EXPECT_EQ(first_fault(schedule), "");
  schedule.ranks[0][0].overlapped = true;
  EXPECT_EQ(first_fault(schedule), "rank 0, position 0: 0F0: only an F can overlap, and only with a B right behind it");
}

TEST(Checker, NamesTheFirstActionThatKeepsTooMuch) {
  const ComputeSchedule schedule = computes(2, 3, {"0F0 0F1 0I0 0F2 0W0 0I1 0W1 0B2", "1F0 1B0 1F1 1B1 1F2 1B2"});
  EXPECT_TRUE(check_in_flight(schedule, 3).empty());
  const auto faults = check_in_flight(schedule, 2);
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].message, "rank 0, position 3: 0F2: keeps 3 activations, the limit is 2");
  EXPECT_TRUE(check_in_flight(schedule, 2, KeptUntil::input_gradient).empty());
  EXPECT_EQ(peak_in_flight_by_rank(schedule), (std::vector<int>{3, 1}));
  EXPECT_EQ(peak_in_flight_by_rank(schedule, KeptUntil::input_gradient), (std::vector<int>{2, 1}));
}

TEST(Checker, SaysWhoWaitsForWhomInADeadlock) {
  const auto faults = check(computes(2, 2, {"0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"}));
  ASSERT_EQ(faults.size(), 2U);
  EXPECT_EQ(faults[0].rank, 0);
  EXPECT_EQ(faults[0].position, 1);
  EXPECT_EQ(faults[0].message,
            "rank 0 waits for ever at position 1, 0B0: needs 1B0, which rank 1 runs at position 2, but that waits at "
            "position 1, 1F1");
  EXPECT_EQ(faults[1].message,
            "rank 1 waits for ever at position 1, 1F1: needs 0F1, which rank 0 runs at position 2, but that waits at "
            "position 1, 0B0");
}

TEST(Checker, FindsADeadlockBetweenStagesOfOneRank) {
  EXPECT_EQ(first_fault(computes(2, 1, {"1F0 0F0 1B0 0B0"})),
            "rank 0 waits for ever at position 0, 1F0: needs 0F0, which rank 0 runs at position 1, but that waits at "
            "position 0, 1F0");
}

TEST(Checker, CountsAStashUntilTheWeightGradient) {
  EXPECT_EQ(peak_in_flight_by_stage(computes(1, 3, {"0F0 0I0 0F1 0I1 0W0 0W1 0F2 0B2"})), (std::vector<int>{2}));
}

}  // namespace
}  // namespace stagecraft
