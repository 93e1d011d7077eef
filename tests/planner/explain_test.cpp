#include "planner/explain.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/network/layer_graph.hpp"
#include "planner/confirm.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Steps of `compute` seconds and a bubble.
RankedPlan ranked_plan(std::int64_t microbatches, double compute, double bubble) {
  RankedPlan ranked;
  ranked.candidate.layout = {2, 2, 1, 1, microbatches, "1f1b"};
  ranked.candidate.devices = "2x fast";
  ranked.candidate.timeline = Seconds(compute + bubble);
  ranked.candidate.breakdown.compute = Seconds(compute);
  ranked.candidate.breakdown.bubble = Seconds(bubble);
  return ranked;
}

TEST(Verdicts, AreOnTheTimelineWhereNothingWasConfirmed) {
  SearchResult result;
  result.ranked = {ranked_plan(8, 9, 1), ranked_plan(4, 9, 2)};
  give_verdicts(result);
  EXPECT_EQ(result.ranked[0].candidate.verdict, "best");
  EXPECT_EQ(result.ranked[1].candidate.verdict, "slower: +10 %, bubble +1.00 s");
  EXPECT_EQ(result.why,
            "P=2 R=1 b=1 M=8 1f1b recompute=none on 2x fast: 10.0 s a step, of which compute 9.00 s (90 %), bubble "
            "1.00 s (10 %)\nagainst the runner-up, P=2 R=1 b=1 M=4 1f1b recompute=none on 2x fast: 11.0 s a step, +10 "
            "%; saves 1.00 s of bubble");
}

// The timeline's second is SimGrid's first: contention takes 2 s of the other.
TEST(Verdicts, AreOnTheOrderThatSimGridLeft) {
  SearchResult result;
  result.ranked = {ranked_plan(4, 9, 2), ranked_plan(8, 9, 1), ranked_plan(2, 9, 3)};
  result.ranked[0].candidate.simgrid = Seconds(11);
  result.ranked[1].candidate.simgrid = Seconds(12);
  result.near_misses = {ranked_plan(1, 9, 7).candidate, ranked_plan(16, 9, 0).candidate};
  result.near_misses[1].shortage = {StageId{1}, "fast", Bytes(20), Bytes(10)};
  give_verdicts(result);
  EXPECT_EQ(result.ranked[0].candidate.verdict, "best");
  EXPECT_EQ(result.ranked[1].candidate.verdict, "slower: +9.09 %, contention +2.00 s");
  // Timelines, as SimGrid did not see this one.
  EXPECT_EQ(result.ranked[2].candidate.verdict, "slower: +9.09 %, bubble +1.00 s");
  EXPECT_EQ(result.near_misses[0].verdict, "slower: +45.5 %, bubble +5.00 s");
  EXPECT_EQ(result.near_misses[1].verdict, "out of memory on stage 1 (fast): needs 20 B, has 10 B");
  EXPECT_THAT(result.why, AllOf(HasSubstr("M=4 1f1b recompute=none on 2x fast: 11.0 s a step, of which"),
                                HasSubstr("M=8 1f1b recompute=none on 2x fast: 12.0 s a step, +9.09 %; saves 2.00 s "
                                          "of contention, costs 1.00 s of bubble")));
}

TEST(Verdicts, SayWhatContentionCosts) {
  Candidate winner = ranked_plan(8, 9, 1).candidate;
  winner.simgrid = Seconds(20);
  EXPECT_THAT(why_best(winner, nullptr), HasSubstr("20.0 s a step, of which compute 9.00 s (45 %), bubble 1.00 s (5 "
                                                   "%), contention 10.0 s (50 %)"));
  const Candidate runner_up = ranked_plan(4, 9, 2).candidate;
  EXPECT_THAT(why_best(winner, &runner_up), HasSubstr("11.0 s a step without contention, +10 %; saves 1.00 s"));
}

// Ports that all replicas of a stage use at once.
struct SharedPorts {
  Network network;
  Cluster cluster = make_cluster({{1, 2}, {1, 2}});
  SearchSpace space;

  SharedPorts() {
    network.name = "test";
    network.graph = make_chain(4, 2e9);
    for (LayerId layer = 0; layer < network.graph.layers(); ++layer) {
      network.graph[layer].kind = "layer";
      network.graph[layer].matmul_flops.per_sample = 1;
      network.graph[layer].parameters = 1'000'000'000;
    }
    for (Node& node : cluster.nodes) node.network = {Seconds(0), BytesPerSecond(1e9)};
    space.global_batch = 8;
  }
};

// Two replicas of two ranks on two nodes: replicas side by side share the ports of their nodes. Their messages take
// longer than a stage computes; those of all micro-batches at once, as GPipe's, hold each other up the most.
TEST(Verdicts, FollowTheConfirmedRanking) {
  const SharedPorts job;
  SearchResult result = search(job.network, job.cluster, SimpleModel(), job.space);
  EXPECT_EQ(result.why, "");
  EXPECT_EQ(result.ranked.front().candidate.verdict, "");
  const std::size_t all = result.ranked.size();
  EXPECT_EQ(result.ranked.front().candidate.layout.schedule, "gpipe");
  confirm_best(result, 1000, 1000);
  give_verdicts(result);
  ASSERT_EQ(result.ranked.size(), all);
  EXPECT_EQ(result.ranked.front().candidate.layout.schedule, "1f1b") << "another plan is the best with contention";
  for (std::size_t i = 0; i < all; ++i) {
    const RankedPlan& ranked = result.ranked[i];
    EXPECT_EQ(ranked.candidate.simgrid, ranked.plan.prediction.simgrid_step);
    EXPECT_GE(ranked.candidate.simgrid, result.ranked[i == 0 ? 0 : i - 1].candidate.simgrid);
    EXPECT_THAT(ranked.candidate.verdict,
                i == 0 ? testing::Matcher<std::string>("best")
                       : testing::AnyOf(testing::StartsWith("slower: +"), "as fast", testing::StartsWith("as fast,")));
    EXPECT_THAT(ranked.candidate.verdict, Not(HasSubstr("+-")));
  }
  EXPECT_EQ(result.why.find(to_string(result.ranked[0].candidate.layout)), 0U);
  EXPECT_THAT(result.why, HasSubstr("runner-up, " + to_string(result.ranked[1].candidate.layout)));
}

// The same winners as where all were confirmed, though the timeline ranks them behind plans whose messages meet.
TEST(Confirm, GoesOnUntilTheFirstOnesAreSure) {
  SharedPorts job;
  job.space.keep = 2;
  const SearchResult few = search(job.network, job.cluster, SimpleModel(), job.space);
  ASSERT_EQ(few.ranked.size(), 2U);
  EXPECT_EQ(few.near_misses.size(), 2U);
  job.space.contend = true;
  const SearchResult found = search(job.network, job.cluster, SimpleModel(), job.space);
  ASSERT_GT(found.ranked.size(), 4U);
  EXPECT_TRUE(same_plan(found.ranked[0].candidate, few.ranked[0].candidate));

  SearchResult all = found, result = found;
  confirm_best(all, 1000, 1000);
  ASSERT_EQ(all.ranked.size(), found.ranked.size());
  for (const RankedPlan& plan : all.ranked) EXPECT_GE(*plan.candidate.simgrid, *plan.candidate.timeline * (1 - 1e-9));
  confirm_best(result, 1, 2);
  ASSERT_EQ(result.ranked.size(), 2U);
  EXPECT_EQ(result.ranked[0].candidate.simgrid, all.ranked[0].candidate.simgrid);
  EXPECT_FALSE(same_plan(result.ranked[0].candidate, few.ranked[0].candidate));
  EXPECT_GT(*result.ranked[0].candidate.timeline, *few.ranked[1].candidate.timeline) << "not among those without it";
  EXPECT_EQ(result.near_misses.size(), 2U);
  EXPECT_NE(result.near_misses[0].layout.schedule, result.ranked[0].candidate.layout.schedule);
  for (const Candidate& miss : result.near_misses) EXPECT_GE(step_of(miss), *result.ranked[0].candidate.simgrid);
}

}  // namespace
}  // namespace stagecraft
