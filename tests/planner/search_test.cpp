#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "models/cluster/cluster.hpp"
#include "models/error.hpp"
#include "models/files.hpp"
#include "models/network/layer_graph.hpp"
#include "planner/explain.hpp"
#include "planner/planner.hpp"
#include "sim/timeline.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

SearchResult find(const Network& network, const Cluster& cluster, const SearchSpace& space) {
  SearchResult result = search(network, cluster, SimpleModel(), space);
  give_verdicts(result);
  return result;
}

std::string message_of(const Network& network, const Cluster& cluster, const SearchSpace& space, ErrorKind kind) {
  try {
    find(network, cluster, space);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(Search, FindsTheStepTimeOfTheTextbook) {
  SearchSpace space = make_space(4);
  space.replicas = 1;
  const SearchResult result = find(make_network(make_chain(4)), make_cluster({{1, 2}}), space);
  // Two stages of two layers, f = 2, b = 4, four micro-batches: (M + P - 1)(f + b), idle (P - 1) / (M + P - 1).
  const Plan& best = result.best();
  EXPECT_EQ(best.stages.size(), 2U);
  EXPECT_EQ(best.batch.microbatches, 4);
  EXPECT_EQ(best.prediction.timeline_step, Seconds(30));
  EXPECT_EQ(best.prediction.closed_form_step, Seconds(30));
  EXPECT_DOUBLE_EQ(best.prediction.bubble, 0.2);
}

TEST(Search, PrefersReplicasWhereReductionsAreFree) {
  const SearchResult result = find(make_network(make_chain(4)), make_cluster({{1, 2}}), make_space(4));
  EXPECT_EQ(result.best().replicas(), 2);
  EXPECT_EQ(result.best().ranks(), 1);
  EXPECT_EQ(result.best().prediction.timeline_step, Seconds(24));
  EXPECT_EQ(result.ranked.front().candidate.verdict, "best");
  EXPECT_THAT(result.ranked.back().candidate.verdict, HasSubstr("slower: +"));
}

TEST(Search, MakesPlansThatValidateAndPredictWhatTheTimelineSays) {
  const SearchResult result = find(make_network(make_chain(9), 3, 5, 2), make_cluster({{1, 4}, {2, 4}}), make_space(8));
  for (const RankedPlan& ranked : result.ranked) {
    validate(ranked.plan, "plan");
    EXPECT_EQ(simulate_timeline(ranked.plan).step_times.front(), *ranked.plan.prediction.timeline_step);
    EXPECT_EQ(ranked.plan.prediction.peak_memory.size(), static_cast<std::size_t>(ranked.plan.ranks()));
    EXPECT_EQ(ranked.plan.network_digest, digest(to_json(ranked.plan.network).dump()));
    const Breakdown& b = ranked.candidate.breakdown;
    EXPECT_DOUBLE_EQ((b.compute + b.imbalance + b.bubble + b.communication + b.reduction + b.optimizer).value(),
                     ranked.candidate.timeline->value());
  }
}

TEST(Search, HonoursEveryFixedOption) {
  SearchSpace space = make_space(24);
  space.stages = 3;
  space.replicas = 2;
  space.microbatch = 4;
  space.schedule = "gpipe";
  space.recompute = Recompute::full;
  const SearchResult result = find(make_network(make_chain(7)), make_cluster({{1, 8}}), space);
  for (const RankedPlan& ranked : result.ranked) {
    EXPECT_EQ(ranked.candidate.layout, (Layout{3, 3, 2, 4, 3, "gpipe", Recompute::full}));
    EXPECT_EQ(ranked.plan.schedule.name, "gpipe");
    EXPECT_EQ(ranked.plan.recompute, Recompute::full);
  }
}

TEST(Search, TakesOtherSchedulesThanTheTextbooksOnlyByName) {
  SearchSpace space = make_space(4);
  space.replicas = 1;
  const Network network = make_network(make_chain(4));
  for (const RankedPlan& ranked : find(network, make_cluster({{1, 2}}), space).ranked) {
    EXPECT_THAT(ranked.candidate.layout.schedule, ::testing::AnyOf("gpipe", "1f1b"));
  }
  space.schedule = "interleaved-1f1b";
  const Plan best = find(network, make_cluster({{1, 2}}), space).best();
  EXPECT_EQ(best.schedule.name, "interleaved-1f1b");
  // Two ranks, two stages each, f = 1, b = 2: (M V + P - 1)(f + b).
  EXPECT_EQ(best.stages.size(), 4U);
  EXPECT_EQ(best.prediction.timeline_step, Seconds(27));
}

TEST(Search, HonoursCutsByHand) {
  SearchSpace space = make_space(8);
  space.cuts = {1, 5};
  const SearchResult result = find(make_network(make_chain(6)), make_cluster({{1, 3}}), space);
  for (const RankedPlan& ranked : result.ranked) {
    EXPECT_THAT(ranked.candidate.stages, ::testing::ElementsAre(LayerRange{0, 1}, LayerRange{1, 5}, LayerRange{5, 6}));
  }
}

TEST(Search, UsesAtMostTheDevicesAllowed) {
  SearchSpace space = make_space(8);
  space.devices = 2;
  const SearchResult result = find(make_network(make_chain(6)), make_cluster({{1, 8}}), space);
  for (const RankedPlan& ranked : result.ranked) EXPECT_LE(ranked.plan.replicas() * ranked.plan.ranks(), 2);
}

TEST(Search, GivesTheFasterDevicesMoreLayers) {
  SearchSpace space = make_space(16);
  space.stages = 2;
  space.replicas = 1;
  const SearchResult result = find(make_network(make_chain(6)), make_cluster({{1, 1}, {2, 1}}), space);
  const Plan& plan = result.best();
  for (const PlanStage& stage : plan.stages) {
    const bool is_fast =
        plan.cluster.type_of(plan.devices[0][static_cast<std::size_t>(stage.rank.value)]).name == "type1";
    EXPECT_EQ(stage.layers.last - stage.layers.first, is_fast ? 4 : 2);
  }
}

TEST(Search, CutsBranchesWhereNoSingleOrderCould) {
  LayerGraph graph = make_graph(6, {{0, 1}, {1, 2}, {3, 4}, {4, 5}}, 0);
  Network network = make_network(std::move(graph));
  for (LayerId layer = 0; layer < 6; ++layer) {
    network.graph[layer].kind += std::to_string(layer);
    network.graph[layer].matmul_flops.per_sample = layer == 2 || layer == 3 ? 8 : 2;
  }
  SearchSpace space = make_space(10);
  space.stages = 3;
  space.microbatch = 1;
  const SearchResult result = find(network, make_cluster({{1, 3}}), space);
  validate(result.best(), "plan");
  EXPECT_EQ(result.best().prediction.timeline_step, Seconds(12 * 24));
}

TEST(Search, SaysWhatItSimplifiedForTooManyCuts) {
  const SearchResult result = find(make_network(make_graph(30, {})), make_cluster({{1, 2}}), make_space(2));
  ASSERT_FALSE(result.notes.empty());
  EXPECT_THAT(result.notes.back(), HasSubstr("200,000 legal cuts"));
}

TEST(Search, ReportsWhatDoesNotFitWithStageAndBytes) {
  // 4 layers of 10 bytes and 10 a stashed sample. On one device without recomputation: 40 + 40 of 50.
  const Network network = make_network(make_chain(4), 1, 10, 10);
  SearchSpace space = make_space(4);
  space.stages = 1;
  space.microbatch = 1;
  const SearchResult result = find(network, make_cluster({{1, 1, 50}}), space);
  EXPECT_EQ(result.best().recompute, Recompute::full);
  ASSERT_FALSE(result.near_misses.empty());
  const Candidate& miss = result.near_misses.front();
  EXPECT_EQ(miss.fate, Fate::out_of_memory);
  EXPECT_EQ(miss.shortage->needed, Bytes(80));
  EXPECT_EQ(miss.shortage->available, Bytes(50));
  EXPECT_THAT(miss.verdict, AllOf(HasSubstr("out of memory on stage 0"), HasSubstr("80 B"), HasSubstr("50 B")));
}

TEST(Search, NeverExceedsTheMemoryOfADevice) {
  const Network network = make_network(make_chain(12), 1, 10, 3);
  for (const double memory : {40.0, 60.0, 90.0, 150.0}) {
    const SearchResult result = find(network, make_cluster({{1, 8, memory}}), make_space(16));
    for (const RankedPlan& ranked : result.ranked) {
      for (const Bytes peak : ranked.plan.prediction.peak_memory) EXPECT_LE(peak, Bytes(memory));
    }
  }
}

// Priced with one recomputation only, as by a profile without the others.
class Unrecomputed final : public CostModel {
 public:
  explicit Unrecomputed(Recompute known) : known_(known) {}
  bool knows(Recompute recompute) const override { return recompute == known_; }
  LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const override {
    if (!knows(workload.recompute)) throw bad_input("not measured");
    return SimpleModel().layer_cost(layer, workload, device);
  }

 private:
  Recompute known_;
};

TEST(Search, TriesTheRecomputationsThatTheModelKnows) {
  const Network network = make_network(make_chain(4), 1, 10, 10);
  for (const auto& [name, known] : recompute_names()) {
    SearchSpace space = make_space(4);
    const SearchResult result = search(network, make_cluster({{1, 2}}), Unrecomputed(known), space);
    for (const RankedPlan& ranked : result.ranked) EXPECT_EQ(ranked.plan.recompute, known);
    EXPECT_EQ(result.notes.back(), fmt::format("recomputation: {} tried, as no others were measured", name));
    space.recompute = known;
    EXPECT_TRUE(search(network, make_cluster({{1, 2}}), Unrecomputed(known), space).notes.empty());
    space.recompute = known == Recompute::none ? Recompute::full : Recompute::none;
    EXPECT_THROW(search(network, make_cluster({{1, 2}}), Unrecomputed(known), space), Error);
    // The advice to someone without memory tries no others.
    space.recompute.reset();
    EXPECT_THROW(search(network, make_cluster({{1, 2, 1}}), Unrecomputed(known), space), Error);
  }
}

TEST(Search, SaysWhatWouldMakeItFit) {
  const Network network = make_network(make_chain(4), 1, 10, 10);
  SearchSpace space = make_space(4);
  space.stages = 2;
  space.recompute = Recompute::none;
  const std::string message = message_of(network, make_cluster({{1, 2, 25}}), space, ErrorKind::infeasible);
  EXPECT_THAT(message, AllOf(HasSubstr("out of memory on stage"), HasSubstr("has 25 B"),
                             HasSubstr("with another recompute it fits"), HasSubstr("recompute=full")));
  space.recompute = Recompute::full;
  EXPECT_EQ(find(network, make_cluster({{1, 2, 25}}), space).best().stages.size(), 2U);
}

TEST(Search, SaysHowMuchIsMissingWhenNothingWouldFit) {
  const std::string message = message_of(make_network(make_chain(4), 1, 100, 1), make_cluster({{1, 2, 150}}),
                                         make_space(4), ErrorKind::infeasible);
  EXPECT_THAT(message, AllOf(HasSubstr("400 B"), HasSubstr("300 B")));
}

TEST(Search, NamesOptionsThatContradictEachOther) {
  const Network network = make_network(make_chain(4));
  const Cluster cluster = make_cluster({{1, 8}});
  const auto refused = [&](auto&& set, ErrorKind kind = ErrorKind::bad_input) {
    SearchSpace space = make_space(10);
    set(space);
    return message_of(network, cluster, space, kind);
  };
  EXPECT_THAT(
      refused([](SearchSpace& s) { s.replicas = 3; }),
      HasSubstr("--replicas: the global batch of 10 samples does not divide over 3 replicas; over 2 or 5 it does"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.microbatch = 4; }),
              HasSubstr("--micro-batch: the global batch of 10 samples does not divide into micro-batches of 4; into 2 "
                        "or 5 it does"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.microbatch = 48; }), HasSubstr("of 48; into 10 it does"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.replicas = 2, s.microbatch = 3; }),
              HasSubstr("--micro-batch: a replica's share of the global batch, 5 of 10 over 2 replicas, does not "
                        "divide into micro-batches of 3; into 1 or 5 it does"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.stages = 5; }), HasSubstr("5 stages"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.stages = 0; }), HasSubstr("stages: expected at least 1"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.global_batch = -1; }), HasSubstr("global batch"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.schedule = "1f1c"; }), HasSubstr("1f1b"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.cuts = {3, 2}; }), HasSubstr("rising"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.cuts = {4}; }), HasSubstr("cuts"));
  EXPECT_THAT(refused([](SearchSpace& s) {
                s.cuts = {2};
                s.stages = 3;
              }),
              HasSubstr("1 cut makes 2 stages, but 3 are asked for"));
  EXPECT_THAT(refused(
                  [](SearchSpace& s) {
                    s.stages = 4;
                    s.replicas = 5;
                  },
                  ErrorKind::infeasible),
              HasSubstr("need 20 devices, but 8"));
  EXPECT_THAT(refused([](SearchSpace& s) { s.replicas = 10; }, ErrorKind::infeasible), HasSubstr("10 replicas"));
}

// Looking closely at every layout must not find a better plan than the pruned search: it decides by closed forms which
// layouts the timeline sees.
TEST(Search, LosesNothingByPruning) {
  std::mt19937 random(31);
  for (int round = 0; round < 12; ++round) {
    Network network = make_network(make_chain(6 + round % 4), 1, 4, 2);
    for (LayerId layer = 0; layer < network.graph.layers(); ++layer) {
      network.graph[layer].kind += std::to_string(layer);
      network.graph[layer].matmul_flops.per_sample = 1 + static_cast<double>(random() % 9);
    }
    const Cluster cluster = make_cluster({{1, 3, 60}, {2, 3, 30}});
    SearchSpace space = make_space(12);
    const Seconds pruned = *find(network, cluster, space).ranked.front().candidate.timeline;
    space.timelines = 1'000'000;
    const SearchResult all = find(network, cluster, space);
    EXPECT_EQ(all.counts.outclassed, 0);
    EXPECT_EQ(pruned, *all.ranked.front().candidate.timeline) << "round " << round;
  }
}

// Weights change while micro-batches are in flight: one replica, and a shared table has one stage.
TEST(Search, PlansAsynchronousSchedulesAsTheyTrain) {
  Network network = make_network(make_chain(6), 1, 3);
  const Cluster cluster = make_cluster({{1, 4}});
  SearchSpace space = make_space(24);
  for (const char* schedule : {"pipedream", "pipedream-2bw"}) {
    space.schedule = schedule;
    const SearchResult free = find(network, cluster, space);
    for (const RankedPlan& ranked : free.ranked) {
      EXPECT_EQ(ranked.plan.replicas(), 1);
      EXPECT_NO_THROW(plan_from_json(JsonValue(to_json(ranked.plan), "plan")));
    }
    EXPECT_EQ(free.best().ranks(), 4);
    space.replicas = 2;
    EXPECT_EQ(message_of(network, cluster, space, ErrorKind::bad_input),
              std::string("--replicas: expected 1, as schedule '") + schedule +
                  "' is asynchronous and trains one replica, got 2");
    space.replicas.reset();
    space.zero = 1;
    EXPECT_THAT(message_of(network, cluster, space, ErrorKind::bad_input),
                HasSubstr("--zero: expected 0, as schedule"));
    space.zero = 0;
  }
  network.graph[5].kind = "head";
  network.graph[5].tied_parameters = 3;
  network.graph[5].tied_to = "1";
  const SearchResult together = find(network, cluster, space);
  const Plan& tied = together.best();
  EXPECT_FALSE(tied.tied_ends());
  EXPECT_NO_THROW(plan_from_json(JsonValue(to_json(tied), "plan")));
  space.stages = 4;
  EXPECT_THAT(message_of(network, cluster, space, ErrorKind::infeasible),
              HasSubstr("share a table together, as asynchronous schedule 'pipedream-2bw' needs it"));
}

TEST(Search, HasTheRanksAndStagesARankThatAreAskedFor) {
  const Network network = make_network(make_chain(8));
  const Cluster cluster = make_cluster({{1, 4}});
  SearchSpace space = make_space(8);
  space.ranks = 3;
  EXPECT_EQ(find(network, cluster, space).best().ranks(), 3);
  space.ranks = 2;
  space.stages_per_rank = 2;
  EXPECT_THAT(message_of(network, cluster, space, ErrorKind::bad_input),
              HasSubstr("--virtual-stages: expected --schedule with it, such as interleaved-1f1b, as gpipe and 1f1b"));
  space.schedule = "interleaved-1f1b";
  EXPECT_EQ(find(network, cluster, space).best().ranks(), 2);
  EXPECT_EQ(find(network, cluster, space).best().stages.size(), 4U);
  space.stages = 5;
  EXPECT_THAT(message_of(network, cluster, space, ErrorKind::bad_input), HasSubstr("make 4 stages, but 5 stages"));
  space.stages_per_rank.reset();
  EXPECT_EQ(message_of(network, cluster, space, ErrorKind::bad_input),
            "--pipeline: expected a divisor of the 5 stages, got 2");
  space.stages.reset();
  space.replicas = 4;
  EXPECT_EQ(message_of(network, cluster, space, ErrorKind::infeasible),
            "--pipeline: 2 ranks in 4 replicas need 8 devices, but 4 can be used");
}

// Owner and user of a table on one device.
TEST(Search, CountsASharedTableOnce) {
  Network network = make_network(make_chain(3), 1, 10);
  network.graph[2].tied_to = "0";
  network.graph[2].tied_parameters = 10;
  const SearchResult result = find(network, make_cluster({{1, 1, 20}}), make_space(1));
  EXPECT_EQ(result.best().prediction.peak_memory[0], Bytes(20));
  EXPECT_THAT(message_of(network, make_cluster({{1, 1, 19}}), make_space(1), ErrorKind::infeasible),
              AllOf(HasSubstr("needs 20 B, has 19 B"), HasSubstr("state alone are 20 B")));
}

TEST(Search, IsDeterministic) {
  const Network network = make_network(make_chain(10), 3, 5, 2);
  const Cluster cluster = make_cluster({{1, 4}, {2, 4}});
  const SearchResult first = find(network, cluster, make_space(24));
  const SearchResult second = find(network, cluster, make_space(24));
  ASSERT_EQ(first.ranked.size(), second.ranked.size());
  for (std::size_t i = 0; i < first.ranked.size(); ++i) {
    EXPECT_EQ(to_json(first.ranked[i].plan), to_json(second.ranked[i].plan));
  }
  EXPECT_EQ(first.why, second.why);
}

TEST(Search, ExplainsTheWinnerInTermsOfItsStep) {
  SearchSpace space = make_space(4);
  space.replicas = 1;
  const SearchResult result = find(make_network(make_chain(4)), make_cluster({{1, 2}}), space);
  EXPECT_THAT(result.why,
              AllOf(HasSubstr("30.0 s a step"), HasSubstr("compute 24.0 s (80 %)"), HasSubstr("bubble 6.00 s (20 %)"),
                    HasSubstr("on 2x type0"), HasSubstr("against the runner-up"), HasSubstr("saves 6.00 s of bubble")));
  EXPECT_GT(result.counts.layouts, 0);
  EXPECT_EQ(result.counts.layouts, result.counts.partitioned + result.counts.out_of_memory + result.counts.outclassed);
}

}  // namespace
}  // namespace stagecraft
