#include "planner/device_groups.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "models/cost/communication.hpp"
#include "models/cost/framework_cost.hpp"
#include "models/cost/roofline.hpp"
#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/recomputed_layers.hpp"
#include "planner/framework_space.hpp"
#include "sim/timeline.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Network make_transformer(std::int64_t heads = 8) {
  Network network;
  network.name = "test";
  Transformer t;
  t.family = "gpt2";
  t.layers = 12;
  t.hidden = 1024;
  t.heads = t.kv_heads = heads;
  t.head_size = t.hidden / heads;
  t.ffn = 4 * t.hidden;
  t.vocabulary = 32000;
  t.max_sequence = 1024;
  network.graph = build_graph(t);
  network.transformer = t;
  return network;
}

// Two nodes of four new devices with little memory and one of eight old ones.
Cluster two_generations() {
  Cluster cluster = make_cluster({{400e12, 4, 12e9}, {100e12, 8, 6e9}});
  cluster.device_types[0].name = "new";
  cluster.device_types[1].name = "old";
  for (Node& node : cluster.nodes) {
    node.local = {Seconds(5e-6), BytesPerSecond(200e9)};
    node.network = {Seconds(5e-6), BytesPerSecond(10e9)};
    node.nics = 4;
  }
  return cluster;
}

SearchSpace make_space() {
  SearchSpace space;
  space.global_batch = 32;
  space.sequence = 1024;
  return space;
}

TEST(DeviceGroups, AreAsLargeAndFastAsTheirDevicesTogether) {
  const Cluster cluster = two_generations();
  const std::vector<int> widths{4, 2};
  const Cluster grouped = with_groups(cluster, widths);
  ASSERT_EQ(grouped.devices.size(), 5U);
  EXPECT_THAT(grouped.nodes[0].devices, ElementsAre(DeviceId{0}));
  EXPECT_THAT(grouped.nodes[1].devices, ElementsAre(DeviceId{1}, DeviceId{2}, DeviceId{3}, DeviceId{4}));
  EXPECT_EQ(devices_in(grouped), devices_in(cluster));
  const DeviceType &type = grouped.device_types[0], &one = cluster.device_types[0];
  EXPECT_EQ(type.name, "4-way new");
  EXPECT_EQ(type.memory, 4 * one.memory);
  EXPECT_EQ(type.memory_bandwidth, 4 * one.memory_bandwidth);
  EXPECT_EQ(type.peak_of(DataType::bf16), 4 * one.peak_of(DataType::bf16));
  EXPECT_EQ(type.group, 4);
  EXPECT_EQ(type.group_link, cluster.nodes[0].local);
  // All ports of the node are the one group's; four NICs of the other node serve four groups.
  EXPECT_EQ(grouped.nodes[0].nics, 1);
  EXPECT_EQ(grouped.nodes[0].network.bandwidth, 4 * cluster.nodes[0].network.bandwidth);
  EXPECT_EQ(grouped.nodes[1].nics, 4);
  EXPECT_EQ(grouped.nodes[1].network.bandwidth, cluster.nodes[1].network.bandwidth);
  EXPECT_EQ(grouped.nodes[1].local.bandwidth, 2 * cluster.nodes[1].local.bandwidth);
  EXPECT_EQ(cluster_from_json(JsonValue(to_json(grouped), "again")), grouped);
  Cluster named = cluster;
  named.device_types[1].name = "4-way new";
  EXPECT_NE(with_groups(named, std::vector<int>{4, 1}).device_types[0].name, "4-way new");
  const std::vector<int> ones{1, 1};
  EXPECT_EQ(with_groups(cluster, ones), cluster);
}

TEST(DeviceGroups, TakeAShareOfEachLayerAndTheRingsBetweenTheParts) {
  Cluster cluster = two_generations();
  cluster.device_types[0].efficiency.half_rate = Flops(1e9);
  cluster.device_types[0].efficiency.launch = Seconds(1e-5);
  const Cluster grouped = with_groups(cluster, std::vector<int>{4, 1});
  const Network network = make_transformer();
  const Workload workload{.microbatch = 2, .sequence = 1024};
  const RooflineCostModel model;
  const auto cost = [&](LayerId layer, const Cluster& where) {
    return model.layer_cost(network.graph[layer], workload, where.device_types[0]);
  };
  const Bytes activation(2.0 * 1024 * 1024 * 2);  // samples, tokens, hidden, bf16
  const Seconds ring = ring_all_gather_time(cluster.nodes[0].local, 4, activation);
  const Seconds launch(1e-5);
  const DeviceType& type = cluster.device_types[0];
  const Seconds start = Flops(1e9) / (type.peak_of(DataType::bf16) * type.efficiency.matmul);
  const LayerCost whole = cost(1, cluster), split = cost(1, grouped);
  EXPECT_NEAR(split.forward.value(), ((whole.forward - launch - start) / 4 + launch + start + 4 * ring).value(), 1e-9);
  EXPECT_NEAR(split.backward_input.value(),
              ((whole.backward_input - launch - start) / 4 + launch + start + 4 * ring).value(), 1e-9);
  EXPECT_NEAR(split.backward_weight.value(), ((whole.backward_weight - launch - start) / 4 + launch + start).value(),
              1e-9);
  EXPECT_EQ(split.weights, whole.weights);  // of all four
  EXPECT_EQ(split.stash, whole.stash);
  const LayerId head = static_cast<LayerId>(network.graph.layers()) - 1;
  EXPECT_NEAR(cost(0, grouped).forward.value(), ((cost(0, cluster).forward - launch) / 4 + launch + ring).value(),
              1e-9);
  EXPECT_NEAR(cost(head, grouped).forward.value(),
              ((cost(head, cluster).forward - launch - start) / 4 + launch + start + ring).value(), 1e-9);
}

TEST(DeviceGroups, HaveWidthsThatNodesAndNetworkDivideBy) {
  Cluster cluster = two_generations();
  EXPECT_THAT(group_widths(cluster, make_transformer(), 1024),
              ElementsAre(ElementsAre(1, 2, 4), ElementsAre(1, 2, 4, 8)));
  EXPECT_THAT(group_widths(cluster, make_transformer(2), 1024), ElementsAre(ElementsAre(1, 2), ElementsAre(1, 2)));
  const Cluster grouped = with_groups(cluster, std::vector<int>{2, 1});
  EXPECT_THAT(group_widths(grouped, make_transformer(), 1024), ElementsAre(ElementsAre(1), ElementsAre(1, 2, 4, 8)));
  // A node of both types has no groups, and so have other nodes of these types none.
  cluster.devices[static_cast<std::size_t>(cluster.nodes[1].devices.front().value)].type = 0;
  EXPECT_THAT(group_widths(cluster, make_transformer(), 1024), ElementsAre(ElementsAre(1), ElementsAre(1)));
}

TEST(DeviceGroups, AreSearchedInEveryCombinationOfWidths) {
  const Network network = make_transformer();
  const Cluster cluster = two_generations();
  const RooflineCostModel model;
  const SearchSpace space = make_space();
  const SearchResult result = search_groups(network, cluster, model, space, std::nullopt);
  const auto step = [](const SearchResult& found) { return found.ranked.front().candidate.timeline->value(); };
  double least = 1e300, alike = 1e300;
  for (const int of_new : {1, 2, 4}) {
    for (const int of_old : {1, 2, 4, 8}) {
      const std::vector<int> widths{of_new, of_old};
      try {
        const double here = step(search(network, with_groups(cluster, widths), model, space));
        least = std::min(least, here);
        if (of_new == of_old) alike = std::min(alike, here);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::infeasible) << error.what();
      }
    }
  }
  EXPECT_EQ(step(result), least);
  EXPECT_LT(least, 0.99 * alike);  // unlike widths win here
  const auto& types = result.best().cluster.device_types;
  EXPECT_NE(types[0].group, types[1].group);
  EXPECT_THAT(result.notes.back(), HasSubstr("an n-way device is n of a node"));

  // A plan holds the groups that it is for.
  const Plan plan = plan_from_json(JsonValue(to_json(result.best()), "plan"));
  EXPECT_EQ(plan.cluster, result.best().cluster);
  EXPECT_LE(plan.devices_used(), devices_in(cluster));
}

// As a framework has it: no width of one type without the other's.
TEST(DeviceGroups, HaveOneWidthWhereThatIsAsked) {
  const Network network = make_transformer();
  const Cluster cluster = two_generations();
  const FrameworkCostModel model(network, cluster, "megatron-core");
  SearchSpace space = make_space();
  space.same_width = true;
  const auto step = [](const SearchResult& found) { return found.ranked.front().candidate.timeline->value(); };
  double least = 1e300;
  for (const int width : {1, 2, 4}) {
    try {
      least =
          std::min(least, step(search(network, with_groups(cluster, std::vector<int>{width, width}), model, space)));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::infeasible) << error.what();
    }
  }
  const SearchResult result = search_groups(network, cluster, model, space, {});
  EXPECT_EQ(step(result), least);
  for (const RankedPlan& ranked : result.ranked) {
    const auto& types = ranked.plan.cluster.device_types;
    EXPECT_EQ(types[0].group, types[1].group);
  }
}

Abilities some_framework() {
  Abilities can;
  can.framework = "some";
  can.schedules = {PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved_one_f_one_b};
  can.zero = {0, 1};
  can.zero_with_pipelines = {0};
  can.zero_with_tensor = {0, 1};
  can.recompute = {Recompute::none, Recompute::full};
  return can;
}

TEST(Frameworks, LeaveWhatTheyRun) {
  const auto complaint = [](SearchSpace space, const Abilities& can, std::optional<int> tensor = {}) {
    try {
      leave_possible(space, tensor, can);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  SearchSpace space = make_space();
  std::optional<int> tensor;
  leave_possible(space, tensor, some_framework());
  EXPECT_THAT(space.schedules, ElementsAre("1f1b"));
  EXPECT_THAT(space.recomputes, ElementsAre(Recompute::none, Recompute::full));
  EXPECT_FALSE(space.stages || tensor);
  EXPECT_TRUE(space.same_width);
  space = make_space();
  space.zero = 1;
  leave_possible(space, tensor, some_framework());
  EXPECT_EQ(space.stages, 1);
  space = make_space();
  Abilities can = some_framework();
  can.schedules = {PipelineSchedule::interleaved_one_f_one_b};
  can.zero_with_tensor = {};
  leave_possible(space, tensor, can);
  EXPECT_THAT(space.schedules, ElementsAre("interleaved-1f1b"));
  EXPECT_EQ(tensor, 1);
  EXPECT_EQ(complaint(make_space(), can, 2), "--tensor: expected 1, as some has no tensor parallelism, got 2");
  space = make_space();
  space.schedule = "gpipe";
  EXPECT_EQ(complaint(space, some_framework()),
            "--schedule: expected what some has, 1f1b, interleaved-1f1b, got gpipe");
  space = make_space();
  space.recompute = Recompute::selective;
  EXPECT_EQ(complaint(space, some_framework()), "--recompute: expected what some has, none, full, got selective");
  space = make_space();
  space.zero = 1;
  space.ranks = 2;
  EXPECT_EQ(complaint(space, some_framework()),
            "--pipeline: expected 1, as some has no pipelines beside ZeRO 1, got 2");
  can = some_framework();
  can.zero = {0, 2};
  EXPECT_EQ(complaint(space, can), "--zero: expected what some has, 0, 2, got 1");
}

TEST(DeviceGroups, AlsoShareTheOptimizersStateAndRecomputeFewBlocksWhereThatIsAsked) {
  Cluster cluster = two_generations();
  const Network network = make_transformer();
  const auto best = [&](const SearchSpace& space) {
    return search_groups(network, cluster, RooflineCostModel(), space, {}).best().prediction.timeline_step->value();
  };
  std::set<std::pair<int, bool>> kinds;  // of the best, as memory grows
  for (const double memory : {1e9, 1.5e9, 2e9, 4e9, 1e12}) {
    for (DeviceType& type : cluster.device_types) type.memory = Bytes(memory);
    double least = std::numeric_limits<double>::infinity();
    for (const int zero : {0, 1}) {
      for (const bool fewest : {false, true}) {
        SearchSpace space = make_space();
        space.advise = false;
        space.zero = zero;
        if (fewest) space.recomputed_layers = fewest_layers;
        try {
          least = std::min(least, best(space));
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::infeasible) << error.what();
        }
      }
    }
    SearchSpace all = make_space();
    all.also_sharded = all.also_fewest = true;
    ASSERT_LT(least, std::numeric_limits<double>::infinity()) << memory;
    const SearchResult result = search_groups(network, cluster, RooflineCostModel(), all, {});
    EXPECT_EQ(result.best().prediction.timeline_step->value(), least) << memory;
    const Layout& layout = result.ranked.front().candidate.layout;
    kinds.emplace(layout.zero, layout.recomputed_layers.has_value());
  }
  EXPECT_GT(kinds.size(), 1U);
}

TEST(DeviceGroups, LeaveOutWhatTheOptionsDoNotAllow) {
  SearchSpace space = make_space();
  space.replicas = 1;       // shares nothing out
  space.schedule = "zb-v";  // two stages a rank
  space.also_sharded = space.also_fewest = true;
  const SearchResult result = search_groups(make_transformer(), two_generations(), RooflineCostModel(), space, {});
  for (const RankedPlan& ranked : result.ranked) {
    EXPECT_EQ(ranked.candidate.layout.zero, 0);
    EXPECT_FALSE(ranked.candidate.layout.recomputed_layers);
  }
}

// One device does it all, whatever the width of the other type.
TEST(DeviceGroups, AreRankedOnceWhereAWidthMakesNoDifference) {
  Cluster cluster = two_generations();
  for (DeviceType& type : cluster.device_types) type.memory = Bytes(1e12);
  SearchSpace space = make_space();
  space.global_batch = 1;
  const SearchResult result = search_groups(make_transformer(), cluster, RooflineCostModel(), space, {});
  std::set<std::string> seen;
  const auto text = [](const Candidate& candidate) { return to_string(candidate.layout) + " " + candidate.devices; };
  for (const RankedPlan& ranked : result.ranked) EXPECT_TRUE(seen.insert(text(ranked.candidate)).second);
  for (const Candidate& miss : result.near_misses) EXPECT_TRUE(seen.insert(text(miss)).second) << text(miss);
  EXPECT_EQ(result.ranked.size(), 5U);
}

TEST(DeviceGroups, CountTheirDevicesWhereThoseAreLimited) {
  SearchSpace space = make_space();
  space.devices = 6;
  const SearchResult result = search_groups(make_transformer(), two_generations(), RooflineCostModel(), space, {});
  for (const RankedPlan& ranked : result.ranked) EXPECT_LE(ranked.plan.devices_used(), 6);
  space.devices = 1;
  Network large = make_transformer();
  large.transformer->layers = 200;
  large.graph = build_graph(*large.transformer);
  const auto complaint = [&](std::optional<int> width) {
    try {
      search_groups(large, two_generations(), RooflineCostModel(), space, width);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::infeasible);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(complaint({}), HasSubstr("out of memory"));
  EXPECT_EQ(complaint(4), "--tensor: 4 devices split a layer, but --devices allows 1");
}

TEST(DeviceGroups, HaveTheWidthThatIsAskedFor) {
  const Network network = make_transformer();
  const SearchResult result = search_groups(network, two_generations(), RooflineCostModel(), make_space(), 2);
  for (const RankedPlan& ranked : result.ranked) {
    for (const DeviceType& type : ranked.plan.cluster.device_types) EXPECT_EQ(type.group, 2);
  }
  try {
    search_groups(network, two_generations(), RooflineCostModel(), make_space(), 8);
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--tensor: expected a width that the nodes with device type 'new'"));
    EXPECT_THAT(error.what(), HasSubstr("1, 2, 4; got 8"));
  }
}

}  // namespace
}  // namespace stagecraft
