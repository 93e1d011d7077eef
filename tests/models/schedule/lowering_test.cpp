#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::computes;
using test::text;

TEST(Lower, PutsSendsAfterTheirProducerAndReceivesBeforeTheirConsumer) {
  const LoweredSchedule schedule = lower(make_schedule("1f1b", {3, 1, 1}), {});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0SEND_F0 0RECV_B0 0B0 0STEP");
  EXPECT_EQ(text(schedule.ranks[1]), "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0 1STEP");
  EXPECT_EQ(text(schedule.ranks[2]), "2RECV_F0 2F0 2B0 2SEND_B0 2STEP");
}

TEST(Lower, SendsTheInputGradientBeforeTheWeightGradientIsMade) {
  const LoweredSchedule schedule = lower(computes(2, 1, {"0F0 0I0 0W0", "1F0 1I0 1W0"}), {true, false});
  EXPECT_EQ(text(schedule.ranks[1]), "1RECV_F0 1F0 1I0 1SEND_B0 1W0 1REDUCE_GRAD 1STEP");
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0SEND_F0 0RECV_B0 0I0 0W0 0REDUCE_GRAD 0STEP");
}

TEST(Lower, SendsNothingBetweenStagesOfOneRank) {
  const LoweredSchedule schedule = lower(computes(4, 1, {"0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"}), {});
  EXPECT_EQ(text(schedule.ranks[1]), "1RECV_F0 1F0 2F0 2SEND_F0 2RECV_B0 2B0 1B0 1SEND_B0 1STEP 2STEP");
}

TEST(Lower, StartsTheSumOfAStageRightAfterItsLastWeightGradient) {
  const LoweredSchedule schedule = lower(computes(2, 2, {"0F0 1F0 0F1 1F1 1B0 1B1 0B0 0B1"}), {true, false});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 1F0 0F1 1F1 1B0 1B1 1REDUCE_GRAD 0B0 0B1 0REDUCE_GRAD 0STEP 1STEP");
}

TEST(Lower, SumsATiedTableBeforeTheReplicasSumTheirs) {
  const LoweredSchedule schedule = lower(make_schedule("gpipe", {3, 1, 1}), {true, true});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0SEND_F0 0RECV_B0 0B0 0REDUCE_TIED 0REDUCE_GRAD 0STEP");
  EXPECT_EQ(text(schedule.ranks[1]), "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0 1REDUCE_GRAD 1STEP");
  EXPECT_EQ(text(schedule.ranks[2]), "2RECV_F0 2F0 2B0 2SEND_B0 2REDUCE_TIED 2REDUCE_GRAD 2STEP");
}

TEST(Lower, NeedsNoTiedSumWhenBothEndsAreOnOneRank) {
  EXPECT_EQ(text(lower(make_schedule("gpipe", {1, 1, 1}), {true, true}).ranks[0]), "0F0 0B0 0REDUCE_GRAD 0STEP");
}

TEST(Lower, RefusesAScheduleThatCannotRun) {
  try {
    lower(computes(1, 1, {"0B0 0F0"}), {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_STREQ(error.what(), "schedule 'custom': rank 0, position 0: 0B0: needs 0F0 before it");
  }
}

TEST(Lower, MakesSchedulesThatOneBufferADirectionCanRun) {
  test::for_each_legal_shape(5, 3, 9, [](const ScheduleKind& kind, const ScheduleShape& shape) {
    const ComputeSchedule schedule = make_schedule(kind.name, shape);
    const auto faults = check(lower(schedule, {true, true}, Receives::as_sent), 1, Pairing::by_order);
    EXPECT_TRUE(faults.empty()) << kind.name << " P=" << shape.ranks << " V=" << shape.stages_per_rank
                                << " M=" << shape.microbatches << ": " << faults.front().message;
  });
}

TEST(Lower, ReceivesAtNeedWithABufferForEveryMessageOfAPairOfRanks) {
  test::for_each_legal_shape(5, 3, 9, [](const ScheduleKind& kind, const ScheduleShape& shape) {
    const ComputeSchedule schedule = make_schedule(kind.name, shape);
    const int messages = 2 * schedule.stages * schedule.microbatches;
    const auto faults = check(lower(schedule, {true, true}), messages, Pairing::by_tag);
    EXPECT_TRUE(faults.empty()) << kind.name << " P=" << shape.ranks << " V=" << shape.stages_per_rank
                                << " M=" << shape.microbatches << ": " << faults.front().message;
  });
}

TEST(Lowering, SumsTheGradientsOfAStageOnTwoRanks) {
  const LoweredSchedule schedule = lower(test::computes(2, 2, {"0F0 1F1 1B1 0B0", "0F1 1F0 1B0 0B1"}), {false, true});
  EXPECT_EQ(text(schedule.ranks[0]),
            "0F0 0SEND_F0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD 0RECV_B0 0B0 0REDUCE_GRAD 0STEP 1STEP");
  EXPECT_TRUE(check(schedule, 2, Pairing::by_tag).empty());
}

TEST(Lowering, SendsBehindAnOverlappedPairWhatBothMade) {
  ComputeSchedule computes = test::computes(2, 2, {"0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1"});
  computes.ranks[0][1].overlapped = true;
  // Rank 1 cannot answer 1B0 before it has 0F1; rank 0 makes both together.
  EXPECT_EQ(text(lower(computes, {}).ranks[0]), "0F0 0SEND_F0 0RECV_B0 0F1 0B0 0SEND_F1 0RECV_B1 0B1 0STEP");
}

TEST(Lowering, OrdersReceivesAsSentForTransportsThatPairByOrder) {
  // Rank 0 sends forward to stage 1 and backward to stage 2, which rank 1 uses in the other order.
  const ComputeSchedule computes =
      test::computes(4, 2, {"0F0 0F1 3F0 3B0 3F1 3B1 0B0 0B1", "1F0 2F0 1F1 2F1 2B0 1B0 2B1 1B1"});
  ASSERT_TRUE(check(computes).empty());
  for (const int buffers : {0, 1, 4}) {
    EXPECT_TRUE(check(lower(computes, {}, Receives::as_sent), buffers, Pairing::by_order).empty()) << buffers;
  }
}

TEST(Lowering, StepsAfterEachUpdateOfAnAsynchronousSchedule) {
  ComputeSchedule computes = test::computes(1, 3, {"0F0 0F1 0B0 0F2 0B1 0B2"});
  computes.updates = WeightUpdates::pipedream;
  EXPECT_EQ(text(lower(computes, {}).ranks[0]), "0F0 0F1 0B0 0STEP0 0F2 0B1 0STEP1 0B2 0STEP2");
  computes.updates = WeightUpdates::two_buffered;
  computes.update_group = 2;
  EXPECT_EQ(text(lower(computes, {}).ranks[0]), "0F0 0F1 0B0 0F2 0B1 0STEP1 0B2 0STEP2");
  EXPECT_TRUE(check(lower(computes, {}), 0).empty());
}

TEST(Lowering, HasNoStepInInference) {
  ComputeSchedule computes = test::computes(2, 1, {"0F0", "1F0"});
  computes.forward_only = true;
  EXPECT_EQ(text(lower(computes, {true, true}).ranks[1]), "1RECV_F0 1F0");
  EXPECT_TRUE(check(lower(computes, {}), 0).empty());
}

}  // namespace
}  // namespace stagecraft
