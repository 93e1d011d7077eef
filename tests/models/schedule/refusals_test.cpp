// Which shapes each generator refuses, and what it says.

#include <gtest/gtest.h>

#include <algorithm>

#include "models/error.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

TEST(Refusals, AreExactlyTheRulesOfEachSchedule) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 1; v <= 4; ++v) {
      for (int m = 1; m <= 32; ++m) {
        const ScheduleShape shape{p, v, m};
        for (const char* name : {"gpipe", "1f1b", "eager-1f1b", "zb-h1", "zb-h2", "pipedream"}) {
          EXPECT_EQ(accepts(name, shape), v == 1) << name;
        }
        EXPECT_EQ(accepts("pipedream-2bw", shape), v == 1 && m >= p);
        EXPECT_EQ(accepts("zb-v", shape), v == 2);
        EXPECT_TRUE(accepts("looped-bfs", shape));
        EXPECT_TRUE(accepts("inference", shape));
        EXPECT_EQ(accepts("interleaved-1f1b", shape), v > 1 && m % p == 0);
        const bool equal_rounds = m < p || m % (m / p) == 0;
        EXPECT_EQ(accepts("interleaved-1f1b-torch", shape), equal_rounds);
        EXPECT_EQ(accepts("interleaved-zero-bubble", shape), equal_rounds);
        for (int n = 1; n <= m + 2; ++n) {
          const ScheduleShape grouped{p, v, m, n};
          EXPECT_EQ(accepts("interleaved-1f1b", grouped), v > 1 && p <= n && n <= m && (m % n == 0 || m % n >= p));
          EXPECT_EQ(accepts("pipedream-2bw", grouped), v == 1 && n >= p && m % n == 0);
        }
      }
    }
  }
}

TEST(Refusals, NameTheRuleAndTheNearestLegalValues) {
  EXPECT_EQ(refusal("zb-h1", {4, 2, 8}), "needs one stage a rank, got 2");
  EXPECT_EQ(refusal("zb-v", {4, 1, 8}), "needs two stages a rank, got 1");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 1, 8}), "needs two or more stages a rank, got 1");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 3}), "needs M >= P = 4 micro-batches, got 3");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 10}), "needs M divisible by P = 4: 8 or 12, got 10; or groups of 5");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 9}), "needs M divisible by P = 4: 8 or 12, got 9; or groups of 5");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 10, 3}), "needs a group from P = 4 to M = 10: 5, got 3");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 10, 12}), "needs a group from P = 4 to M = 10: 10, got 12");
  EXPECT_EQ(refusal("interleaved-1f1b", {4, 2, 11, 8}),
            "needs M % group = 0 or >= P = 4: M 8 or 12 or group 7 or 11, got 11 % 8 = 3");
  EXPECT_EQ(refusal("interleaved-1f1b-torch", {4, 2, 9}),
            "needs M divisible into M/P = 2 rounds (P = 4): 8 or 10 micro-batches, got 9");
  EXPECT_EQ(refusal("interleaved-zero-bubble", {4, 1, 14}),
            "needs M divisible into M/P = 3 rounds (P = 4): 12 or 15 micro-batches, got 14");
  EXPECT_EQ(refusal("pipedream-2bw", {4, 1, 3}), "needs at least P = 4 micro-batches an update, got 3");
  EXPECT_EQ(refusal("pipedream-2bw", {4, 1, 11, 5}), "needs M divisible by group = 5: 10 or 15, got 11");
  EXPECT_EQ(refusal("pipedream-2bw", {4, 1, 3, 5}), "needs M divisible by group = 5: 5, got 3");
}

TEST(Refusals, NameOnlyValuesThatAreAccepted) {
  // The message of the last case above, word by word.
  for (const int m : {8, 12}) EXPECT_TRUE(accepts("interleaved-1f1b", {4, 2, m, 8}));
  for (const int n : {7, 11}) EXPECT_TRUE(accepts("interleaved-1f1b", {4, 2, 11, n}));
  for (const int m : {12, 15}) EXPECT_TRUE(accepts("interleaved-zero-bubble", {4, 1, m}));
  EXPECT_TRUE(accepts("interleaved-1f1b", {4, 2, 10, 5}));
}

TEST(Refusals, ConcernOptionsThatASchedulesOrderDoesNotUse) {
  EXPECT_EQ(refusal("1f1b", {4, 1, 8, 4}), "forms no groups of micro-batches, got group 4");
  ScheduleShape sliced{4, 2, 8};
  sliced.slices = 2;
  for (const char* name : {"looped-bfs", "zb-v", "interleaved-1f1b", "interleaved-zero-bubble", "inference"}) {
    EXPECT_EQ(refusal(name, sliced), "does not cut micro-batches into token slices, got 2");
  }
}

}  // namespace
}  // namespace stagecraft
