// Which shapes the V-shaped, bidirectional, wave, sliced and planned schedules refuse, and what they say.
#include "models/schedule/legal_values.hpp"

#include <gtest/gtest.h>

#include "models/error.hpp"
#include "tests/models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

ScheduleShape with_limit(ScheduleShape shape, double limit) {
  shape.memory_limit = limit;
  return shape;
}

TEST(NearestMultiples, AreThoseOnEitherSideFromTheLeastOn) {
  EXPECT_EQ(nearest_multiples(5, 2, 2), "4 or 6");
  EXPECT_EQ(nearest_multiples(1, 2, 2), "2");
  EXPECT_EQ(nearest_multiples(3, 2, 8), "8");
  EXPECT_EQ(nearest_multiples(9, 4, 4), "8 or 12");
}

TEST(LegalValues, AreExactlyTheRulesOfEachSchedule) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 1; v <= 4; ++v) {
      for (int m = 1; m <= 32; ++m) {
        const ScheduleShape shape{p, v, m};
        for (const char* name : {"zb-1p", "zb-2p", "seq-1f1b"}) EXPECT_EQ(accepts(name, shape), v == 1) << name;
        for (const char* name : {"zb-v-auto", "v-half", "v-min"}) EXPECT_EQ(accepts(name, shape), v == 2) << name;
        EXPECT_EQ(accepts("chimera", shape), v == 1 && p % 2 == 0 && m % 2 == 0);
        EXPECT_EQ(accepts("bitpipe", shape), v == 2 && p % 2 == 0 && p >= 4 && m % p == 0);
        EXPECT_EQ(accepts("dualpipe", shape), v == 1 && p % 2 == 0 && m % 2 == 0 && m >= 2 * p);
        EXPECT_EQ(accepts("dualpipe-v", shape), v == 2 && m >= 2 * p);
        EXPECT_EQ(accepts("hanayo", shape), v % 2 == 0);
        EXPECT_TRUE(accepts("searched", shape));
      }
    }
  }
}

TEST(LegalValues, AreNamedWithTheRuleAndTheNearestOnes) {
  EXPECT_EQ(refusal("chimera", {4, 2, 8}), "needs one stage a rank, got 2");
  EXPECT_EQ(refusal("chimera", {5, 1, 8}), "needs an even number of ranks, got 5; nearest: 4 or 6");
  EXPECT_EQ(refusal("chimera", {4, 1, 7}),
            "needs an even number of micro-batches, half for each direction, got 7; nearest: 6 or 8");
  EXPECT_EQ(refusal("bitpipe", {4, 1, 8}), "needs two stages a rank, got 1");
  EXPECT_EQ(refusal("bitpipe", {2, 2, 8}), "needs an even number of ranks, at least 4, got 2; nearest: 4");
  EXPECT_EQ(refusal("bitpipe", {4, 2, 10}), "needs a multiple of P = 4 micro-batches, got 10; nearest: 8 or 12");
  EXPECT_EQ(refusal("dualpipe", {3, 1, 8}), "needs an even number of ranks, got 3; nearest: 2 or 4");
  EXPECT_EQ(refusal("dualpipe", {4, 1, 6}),
            "needs an even number of micro-batches, half for each direction, at least 8, got 6; nearest: 8");
  EXPECT_EQ(refusal("dualpipe", {4, 1, 11}),
            "needs an even number of micro-batches, half for each direction, at least 8, got 11; nearest: 10 or 12");
  EXPECT_EQ(refusal("dualpipe-v", {4, 2, 7}), "needs at least 2 P = 8 micro-batches, got 7");
  EXPECT_EQ(refusal("hanayo", {4, 3, 8}),
            "needs an even number of stages a rank, two for each wave, got 3; nearest: 2 or 4");
  EXPECT_EQ(refusal("zb-1p", with_limit({4, 1, 8}, 0.5)), "needs memory for at least 1 micro-batch a rank, got 0.5");
  EXPECT_EQ(refusal("zb-v-auto", with_limit({8, 2, 8}, 3)), "needs memory for at least 4 micro-batches a rank, got 3");
  ScheduleShape sliced{4, 1, 8};
  sliced.slices = 0;
  EXPECT_EQ(refusal("seq-1f1b", sliced), "needs at least one slice a micro-batch, got 0");
  sliced.slices = 2;
  EXPECT_EQ(refusal("chimera", sliced), "does not cut micro-batches into token slices, got 2");
}

std::string message_of(std::string_view name, const ScheduleShape& shape) {
  try {
    make_schedule(name, shape);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(MakeSchedule, CountsSlicesAndTimes) {
  ScheduleShape shape{4, 1, 100'000};
  shape.slices = 1000;
  EXPECT_EQ(
      message_of("seq-1f1b", shape),
      "schedule 'seq-1f1b': 4 ranks with 1 stage each and 100,000 micro-batches of 1000 slices are 8e+08 actions; "
      "at most 50,000,000 are accepted");
  shape = {4, 1, 8};
  shape.times.resize(3);
  EXPECT_EQ(message_of("zb-1p", shape), "schedule 'zb-1p': needs the times of 4 stages, got 3");
}

}  // namespace
}  // namespace stagecraft
