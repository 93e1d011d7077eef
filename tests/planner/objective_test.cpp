// What the search of partitions finds by each objective, against every plan that there is on small clusters.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "models/cost/memory.hpp"
#include "models/error.hpp"
#include "models/recomputed_layers.hpp"
#include "planner/confirm.hpp"
#include "planner/explain.hpp"
#include "planner/plan_front.hpp"
#include "planner/planner.hpp"
#include "sim/plan_trace.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"
#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::HasSubstr;

constexpr int layer_count = 5;

// Gradients and optimizer state besides, and a step of the optimizer.
class StateModel final : public CostModel {
 public:
  explicit StateModel(bool only_blocks_recompute = false) : only_blocks_recompute_(only_blocks_recompute) {}
  LayerCost layer_cost(const Layer& layer, const Workload& given, const DeviceType& device) const override {
    Workload workload = given;
    if (only_blocks_recompute_ && !may_recompute(layer)) workload.recompute = Recompute::none;
    LayerCost cost = SimpleModel().layer_cost(layer, workload, device);
    cost.gradients = cost.weights * 2;
    cost.optimizer_state = cost.weights * 4;
    cost.optimizer = Seconds(cost.weights.value() / 8);
    return cost;
  }

 private:
  bool only_blocks_recompute_;
};

struct UnlikeDevices {
  Network network;
  Cluster cluster;
  SearchSpace space;
};

// Two devices each of a slow and a fast type, with small prices, memories and links.
UnlikeDevices random_devices(std::mt19937& random) {
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  UnlikeDevices result;
  result.network.name = "test";
  result.network.graph = make_chain(layer_count);
  for (LayerId layer = 0; layer < layer_count; ++layer) {
    Layer& each = result.network.graph[layer];
    each.kind = "layer" + std::to_string(layer);
    each.matmul_flops.per_sample = draw(1, 9);
    each.parameters = draw(1, 9);
    each.stash.elements.per_sample = draw(0, 4);
  }
  const double slow = draw(100, 200), fast = draw(150, 300);
  result.cluster = make_cluster({{1, 2, slow}, {static_cast<double>(draw(2, 4)), 2, fast}});
  result.cluster.device_types[0].price = draw(1, 4);
  result.cluster.device_types[1].price = draw(2, 12);
  for (Node& node : result.cluster.nodes) {
    node.local = delay(draw(0, 1));
    node.network = {Seconds(draw(0, 2)), BytesPerSecond(draw(5, 50))};
  }
  result.space.global_batch = 4;
  result.space.precision = DataType::fp8;
  result.space.recomputes = {Recompute::none, Recompute::full};
  result.space.timelines = 1000;
  return result;
}

// All layers but the ends are blocks, unlike ones, that keep much.
UnlikeDevices with_blocks(UnlikeDevices example) {
  Transformer& transformer = example.network.transformer.emplace();
  transformer.layers = layer_count - 2;
  transformer.max_sequence = example.space.sequence;
  for (LayerId layer = 1; layer + 1 < layer_count; ++layer) {
    Layer& block = example.network.graph[layer];
    block.input.per_sample = 1;
    block.stash.elements.per_sample = 10 * (block.stash.elements.per_sample + 1);
  }
  return example;
}

struct PlanFigures {
  double price = 0, step = 0;
  double share = 0;  // of memory
  int devices = 0;
};

// The blocks that the space counts on each rank; false: some rank has fewer.
bool set_recomputed(const SearchSpace& space, Plan& plan, const CostModel& model) {
  if (!space.recomputed_layers) return true;
  if (plan.recompute == Recompute::none) return false;
  const std::size_t ranks = plan.stages.size();
  if (space.ranks.value_or(plan.ranks()) != plan.ranks()) return false;
  plan.layout.recomputed_layers = listed_layers;
  auto& counts = plan.layout.recomputed_by_rank;
  counts.assign(ranks, 0);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    int blocks = 0;
    for (auto at = plan.stages[rank].layers.first; at < plan.stages[rank].layers.last; ++at) {
      blocks += may_recompute(plan.network.graph[plan.order[static_cast<std::size_t>(at)]]) ? 1 : 0;
    }
    if (space.recomputed_layers == fewest_layers) {
      const auto fits = [&] {
        price(plan, model);
        return trace_header(plan, "").peak_memory[rank] <= plan.cluster.type_of(plan.devices[0][rank]).memory;
      };
      while (!fits() && counts[rank] < blocks) ++counts[rank];
    } else {
      counts[rank] =
          space.recomputed_layers == listed_layers ? space.recomputed_blocks[rank] : *space.recomputed_layers;
      if (counts[rank] > blocks) return false;
    }
  }
  return true;
}

// Calls visit for every plan that fits and takes at most `devices`.
void for_each_plan_on(const UnlikeDevices& example, Plan plan, int devices,
                      const std::function<void(const PlanFigures&)>& visit) {
  const StateModel model(example.network.transformer.has_value());
  const auto judge = [&] {
    if (!set_recomputed(example.space, plan, model)) return;
    price(plan, model);
    double share = 0, rate = 0;
    const std::vector<Bytes> peaks = trace_header(plan, "").peak_memory;
    for (std::size_t rank = 0; rank < plan.stages.size(); ++rank) {
      const DeviceType& type = plan.cluster.type_of(plan.devices[0][rank]);
      share = std::max(share, peaks[rank] / type.memory);
      rate += static_cast<double>(plan.devices.size()) * type.price;
    }
    if (share <= 1) visit({rate, simulate_timeline(plan).step_times.front().value(), share, plan.devices_used()});
  };
  const std::function<void(std::size_t, std::int64_t)> cut = [&](std::size_t stage, std::int64_t from) {
    plan.stages[stage].layers = {from, layer_count};
    if (stage + 1 == plan.stages.size()) return judge();
    for (std::int64_t to = from + 1; to < layer_count; ++to) {
      plan.stages[stage].layers = {from, to};
      cut(stage + 1, to);
    }
  };
  const auto place = [&](int ranks, int replicas, int slow, bool is_slow_first) {
    const auto device = [&](int replica, int rank) {
      const bool is_slow = is_slow_first ? rank < slow : rank >= ranks - slow;
      const int count = is_slow ? slow : ranks - slow;
      const int before = is_slow == is_slow_first ? 0 : (is_slow ? ranks - slow : slow);
      return DeviceId{(is_slow ? 0 : 2) + replica * count + rank - before};
    };
    plan.devices.clear();
    for (int replica = 0; replica < replicas; ++replica) {
      auto& row = plan.devices.emplace_back();
      for (int rank = 0; rank < ranks; ++rank) row.push_back(device(replica, rank));
    }
    for (const int microbatch : {1, 2, 4}) {
      const int microbatches = 4 / replicas / microbatch;
      if (microbatches == 0) continue;
      plan.batch = {4, microbatch, microbatches, 1};
      for (const char* schedule : {"gpipe", "1f1b"}) {
        plan.schedule = make_schedule(schedule, {ranks, 1, microbatches});
        for (const Recompute recompute : example.space.recomputes) {
          plan.recompute = recompute;
          cut(0, 0);
        }
      }
    }
  };
  plan.layout.zero = static_cast<std::uint8_t>(example.space.zero);
  for (int ranks = 1; ranks <= 4; ++ranks) {
    plan.stages.assign(static_cast<std::size_t>(ranks), {});
    for (int rank = 0; rank < ranks; ++rank) plan.stages[static_cast<std::size_t>(rank)].rank = RankId{rank};
    for (const int replicas : {1, 2}) {
      if (replicas == 1 && example.space.zero == 1) continue;
      for (int slow = 0; slow <= ranks; ++slow) {
        if (ranks * replicas > devices || slow * replicas > 2 || (ranks - slow) * replicas > 2) continue;
        place(ranks, replicas, slow, true);
        if (slow > 0 && slow < ranks) place(ranks, replicas, slow, false);
      }
    }
  }
}

double least_score(const UnlikeDevices& example, const Plan& plan, LayoutObjective objective, int devices = 4) {
  double least = 1e300;
  for_each_plan_on(example, plan, devices, [&](const PlanFigures& figures) {
    const double score = objective == LayoutObjective::time   ? figures.step
                         : objective == LayoutObjective::cost ? figures.price * figures.step
                                                              : figures.share;
    least = std::min(least, score);
  });
  return least;
}

TEST(Objectives, AreMetByNoPlanBetter) {
  std::mt19937 random(11);
  int idle = 0;
  for (int round = 0; round < 12; ++round) {
    UnlikeDevices example = random_devices(random);
    for (const LayoutObjective objective : {LayoutObjective::time, LayoutObjective::cost, LayoutObjective::memory}) {
      example.space.objective = objective;
      const SearchResult result = search(example.network, example.cluster, StateModel(), example.space);
      const double score = score_of(result.ranked.front().candidate, objective).first;
      EXPECT_NEAR(score / least_score(example, result.best(), objective), 1, 1e-9) << "round " << round;
      if (objective == LayoutObjective::cost && result.best().devices_used() < 4) ++idle;
    }
  }
  EXPECT_GT(idle, 3) << "cases where idle devices are cheaper";
}

// Which devices stay idle is searched, too.
TEST(Objectives, AreMetByNoPlanBetterOnFewerDevices) {
  std::mt19937 random(12);
  for (int round = 0; round < 12; ++round) {
    UnlikeDevices example = random_devices(random);
    for (const int devices : {2, 3}) {
      example.space.devices = devices;
      try {
        const SearchResult result = search(example.network, example.cluster, StateModel(), example.space);
        EXPECT_LE(result.best().devices_used(), devices);
        EXPECT_NEAR(result.ranked.front().candidate.timeline->value() /
                        least_score(example, result.best(), LayoutObjective::time, devices),
                    1, 1e-9)
            << "round " << round;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::infeasible) << error.what();
      }
    }
  }
}

TEST(Objectives, AreMetByNoPlanBetterWithASharedOptimizer) {
  std::mt19937 random(15);
  for (int round = 0; round < 8; ++round) {
    UnlikeDevices example = random_devices(random);
    example.space.zero = 1;
    for (const LayoutObjective objective : {LayoutObjective::time, LayoutObjective::cost, LayoutObjective::memory}) {
      example.space.objective = objective;
      const SearchResult result = search(example.network, example.cluster, StateModel(), example.space);
      EXPECT_NEAR(
          score_of(result.ranked.front().candidate, objective).first / least_score(example, result.best(), objective),
          1, 1e-9)
          << "round " << round;
      for (const RankedPlan& ranked : result.ranked) {
        EXPECT_GT(ranked.plan.replicas(), 1);
        EXPECT_EQ(ranked.plan.layout.zero, 1);
      }
    }
  }
}

TEST(Objectives, AreMetByNoPlanBetterWhereBlocksAreCounted) {
  std::mt19937 random(17);
  int some = 0, unlike = 0;
  for (int round = 0; round < 12; ++round) {
    UnlikeDevices example = with_blocks(random_devices(random));
    for (const std::int32_t counted : {fewest_layers, 1, listed_layers}) {
      example.space.recomputed_layers = counted;
      if (counted == listed_layers) example.space.recomputed_blocks = {2, 0};
      example.space.ranks = counted == listed_layers ? std::optional(2) : std::nullopt;
      for (const LayoutObjective objective : {LayoutObjective::time, LayoutObjective::cost, LayoutObjective::memory}) {
        // The fewest blocks are more on smaller devices, which for the least memory are left idle first.
        if (counted == fewest_layers && objective == LayoutObjective::memory) continue;
        example.space.objective = objective;
        const SearchResult result = search(example.network, example.cluster, StateModel(true), example.space);
        EXPECT_NEAR(
            score_of(result.ranked.front().candidate, objective).first / least_score(example, result.best(), objective),
            1, 1e-9)
            << "round " << round << ", " << counted << ", objective " << static_cast<int>(objective);
        for (const RankedPlan& ranked : result.ranked) {
          const std::vector<std::int32_t>& blocks = ranked.plan.layout.recomputed_by_rank;
          EXPECT_EQ(blocks, ranked.candidate.recomputed);
          if (counted != fewest_layers) {
            const std::vector<std::int32_t> ones(ranked.plan.stages.size(), 1);
            EXPECT_EQ(blocks, counted == 1 ? ones : example.space.recomputed_blocks);
          } else if (blocks.empty()) {
            continue;
          }
          ++some;
          unlike += std::count(blocks.begin(), blocks.end(), blocks.front()) < std::ssize(blocks) ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(some, 20);
  EXPECT_GT(unlike, 10);
}

TEST(Fronts, HoldWhatNoPlanBeats) {
  std::mt19937 random(16);
  std::size_t points = 0;
  for (int round = 0; round < 10; ++round) {
    const UnlikeDevices example = random_devices(random);
    const FindFastest find = [&](const SearchSpace& space) {
      return search(example.network, example.cluster, StateModel(), space).ranked.front();
    };
    for (const double tolerance : {0.0, 0.2}) {
      const std::vector<RankedPlan> front = plan_front(example.space, 4, find, tolerance);
      if (tolerance == 0) points += front.size();
      for_each_plan_on(example, front.front().plan, 4, [&](const PlanFigures& plan) {
        // Searched are 1, 2 and all 4 devices: three count as four.
        const int limit = plan.devices == 3 ? 4 : plan.devices;
        bool is_covered = false;
        for (const RankedPlan& ranked : front) {
          const Candidate& point = ranked.candidate;
          is_covered =
              is_covered || (point.devices_used <= limit && *point.timeline <= Seconds(plan.step * (1 + 1e-9)) &&
                             point.memory.share() * (1 - tolerance) <= plan.share * (1 + 1e-6));
          const bool beats = plan.devices <= point.devices_used && plan.step < point.timeline->value() * (1 - 1e-9) &&
                             plan.share <= point.memory.share() * (1 + 1e-12);
          EXPECT_FALSE(beats) << to_string(point.layout) << " " << point.devices << ": " << point.timeline->value()
                              << " s of " << plan.step;
        }
        EXPECT_TRUE(is_covered) << "round " << round << ": " << plan.step << " s, " << plan.share << " of memory, "
                                << plan.devices << " devices";
      });
    }
  }
  EXPECT_GT(points, 50U);
}

// Weights of 10 bytes, gradients of 20 and state of 40 on two replicas, whose ports send 10 bytes a second.
TEST(SharedOptimizers, HoldAndUpdateAPartAndGatherTheWeights) {
  Network network;
  network.name = "test";
  network.graph = make_chain(1);
  network.graph[0].matmul_flops.per_sample = 1;
  network.graph[0].parameters = 10;
  Cluster cluster = make_cluster({{1, 2, 60}});
  cluster.nodes[0].local = {Seconds(0), BytesPerSecond(10)};
  SearchSpace space;
  space.global_batch = 2;
  space.precision = DataType::fp8;
  space.replicas = 2;
  space.schedule = "gpipe";
  space.recompute = Recompute::none;
  EXPECT_THROW(search(network, cluster, StateModel(), space), Error) << "70 bytes do not fit";
  space.zero = 1;
  const SearchResult result = search(network, cluster, StateModel(), space);
  const Plan& plan = result.best();
  EXPECT_EQ(plan.prediction.peak_memory[0], Bytes(10 + 20 + 20));
  // Forward and backward, half of the gradients and half of the weights each way, half of the update.
  EXPECT_EQ(*plan.prediction.timeline_step, Seconds(3 + (20.0 + 10) / 2 / 10 + 10.0 / 8 / 2));
  EXPECT_EQ(simgrid_step(plan), *plan.prediction.timeline_step);
  EXPECT_EQ(to_string(result.ranked.front().candidate.layout), "P=1 R=2 b=1 M=1 gpipe recompute=none zero1");
  const Plan again = plan_from_json(JsonValue(to_json(plan), "plan"));
  EXPECT_EQ(again.layout.zero, 1);
  EXPECT_EQ(again.stages, plan.stages);
}

TEST(Objectives, RankByWhatSimGridSays) {
  std::mt19937 random(13);
  UnlikeDevices example = random_devices(random);
  example.space.objective = LayoutObjective::cost;
  SearchResult result = search(example.network, example.cluster, StateModel(), example.space);
  confirm_best(result, 1000, 1000);
  give_verdicts(result);
  const auto cost = [](const RankedPlan& plan) { return plan.candidate.price * plan.candidate.simgrid->value(); };
  for (std::size_t i = 1; i < result.ranked.size(); ++i) {
    EXPECT_LE(cost(result.ranked[i - 1]), cost(result.ranked[i]) * (1 + 1e-12));
    EXPECT_THAT(result.ranked[i].candidate.verdict, HasSubstr("a step that takes"));
  }
}

TEST(Objectives, NeedPricesOfUnlikeDevices) {
  std::mt19937 random(14);
  UnlikeDevices example = random_devices(random);
  example.space.objective = LayoutObjective::cost;
  example.cluster.device_types[1].price = 0;
  try {
    search(example.network, example.cluster, StateModel(), example.space);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--objective: cost needs a price of every device type, and 'type1' has none"));
  }
  // Like devices cost the same: so many device-seconds.
  for (Device& device : example.cluster.devices) device.type = 1;
  const SearchResult result = search(example.network, example.cluster, StateModel(), example.space);
  const Candidate& best = result.ranked.front().candidate;
  EXPECT_EQ(best.price, 0);
  EXPECT_EQ(score_of(best, LayoutObjective::cost).first, best.devices_used * best.timeline->value());
}

}  // namespace
}  // namespace stagecraft
