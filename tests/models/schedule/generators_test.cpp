#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::text;

std::string message_of(std::string_view name, const ScheduleShape& shape) {
  try {
    make_schedule(name, shape);
  } catch (const Error& error) {
    return error.kind() == ErrorKind::bad_input ? error.what() : "another kind";
  }
  return "";
}

TEST(GPipe, RunsAllForwardsThenAllBackwards) {
  const ComputeSchedule schedule = make_schedule("gpipe", {2, 1, 3});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 0B0 0B1 0B2");
  EXPECT_EQ(text(schedule.ranks[1]), "1F0 1F1 1F2 1B0 1B1 1B2");
}

TEST(OneFOneB, RunsWarmUpSteadyStateAndCoolDown) {
  const ComputeSchedule schedule = make_schedule("1f1b", {4, 1, 6});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 0F3 0B0 0F4 0B1 0F5 0B2 0B3 0B4 0B5");
  EXPECT_EQ(text(schedule.ranks[2]), "2F0 2F1 2B0 2F2 2B1 2F3 2B2 2F4 2B3 2F5 2B4 2B5");
  EXPECT_EQ(text(schedule.ranks[3]), "3F0 3B0 3F1 3B1 3F2 3B2 3F3 3B3 3F4 3B4 3F5 3B5");
}

TEST(OneFOneB, WithFewerMicrobatchesThanRanksIsGPipeOnTheFirstRanks) {
  EXPECT_EQ(text(make_schedule("1f1b", {4, 1, 2}).ranks[0]), "0F0 0F1 0B0 0B1");
}

TEST(Generators, PassTheCheckerForEveryLegalShape) {
  test::for_each_legal_shape(9, 4, 20, [](const ScheduleKind& kind, const ScheduleShape& shape) {
    const ComputeSchedule schedule = make_schedule(kind.name, shape);
    EXPECT_EQ(schedule.name, kind.name);
    const auto faults = check(schedule);
    EXPECT_TRUE(faults.empty()) << kind.name << " P=" << shape.ranks << " V=" << shape.stages_per_rank
                                << " M=" << shape.microbatches << ": " << faults.front().message;
  });
}

TEST(MakeSchedule, RefusesUnknownNamesAndImpossibleShapes) {
  EXPECT_THAT(message_of("1f1", {2, 1, 2}),
              testing::StartsWith("unknown schedule '1f1' (did you mean '1f1b'?); known: gpipe, 1f1b"));
  EXPECT_EQ(message_of("gpipe", {2, 2, 2}), "schedule 'gpipe': needs one stage a rank, got 2");
  EXPECT_EQ(message_of("1f1b", {0, 1, 2}), "schedule '1f1b': needs at least one rank, got 0");
  EXPECT_EQ(message_of("1f1b", {2, 1, 0}), "schedule '1f1b': needs at least one micro-batch, got 0");
  EXPECT_THAT(message_of("1f1b", {1000, 1, 1'000'000'000}), testing::HasSubstr("2e+12 actions; at most 50,000,000"));
}

TEST(Placement, NamesTheRankOfEachStage) {
  const ComputeSchedule schedule = test::computes(4, 1, {"0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"});
  EXPECT_EQ(placement(schedule), (std::vector<RankId>{RankId{0}, RankId{1}, RankId{1}, RankId{0}}));
}

TEST(MakeSchedule, RefusesTimesThatAreNoNumbers) {
  ScheduleShape shape{2, 1, 4};
  shape.times = {{1, 1, 1}, {std::numeric_limits<double>::quiet_NaN(), 1, 1}};
  EXPECT_EQ(message_of("zb-1p", shape), "schedule 'zb-1p': needs finite times of at least 0, got nan");
  shape.times = {{1, 1, 1}, {1, -1, 1}};
  EXPECT_EQ(message_of("searched", shape), "schedule 'searched': needs finite times of at least 0, got -1");
}

}  // namespace
}  // namespace stagecraft
