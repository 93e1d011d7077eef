// Sums over ranks, before anything runs: all members of a group take part in the same ones in the same order, and no
// order makes ranks wait in a circle.
#include "runtime/cuda/reduction_order.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/runtime/plans.hpp"

namespace stagecraft::cuda {
namespace {

// Blocks large enough to be buckets of their own.
Transformer wide_gpt() {
  Transformer t = tiny_gpt(true);
  t.layers = 6;
  t.hidden = 640;
  t.heads = t.kv_heads = 10;
  t.head_size = 64;
  t.ffn = 2560;
  return t;
}

Plan on_gpus(Plan plan) {
  plan.precision = DataType::bf16;
  plan.cluster.device_types.front().kind = DeviceKind::gpu;
  return plan;
}

Plan scheduled(const std::string& name, int ranks, int stages_per_rank, int replicas) {
  const ComputeSchedule schedule =
      make_schedule(name, {.ranks = ranks, .stages_per_rank = stages_per_rank, .microbatches = 8});
  PlanShape shape;
  shape.replicas = replicas;
  Plan plan = make_scheduled_plan(wide_gpt(), schedule, shape);
  // A device for every rank: the helper makes one for every stage.
  plan.cluster.devices.clear();
  plan.cluster.nodes.front().devices.clear();
  for (auto& row : plan.devices) {
    for (DeviceId& device : row) {
      device = DeviceId{static_cast<std::int32_t>(plan.cluster.devices.size())};
      plan.cluster.devices.push_back({0, 0});
      plan.cluster.nodes.front().devices.push_back(device);
    }
  }
  return on_gpus(std::move(plan));
}

std::vector<Reduction> order_of(const Plan& plan, int worker, bool nccl = true) {
  const LoweredSchedule schedule = plan.lowered();
  return reduction_order(plan, schedule, lay_out_rank(plan, schedule, worker % plan.ranks()), worker, nccl);
}

// What two members must agree on.
std::string name_of(const Plan& plan, int worker, const Reduction& r) {
  const LoweredSchedule schedule = plan.lowered();
  const Action& action = schedule.ranks[static_cast<std::size_t>(worker % plan.ranks())][r.action];
  if (action.kind == ActionKind::reduce_tied) return "tied";
  return to_string(action) + " " + std::to_string(r.bucket);
}

// All workers start their sums in order, each on one stream: a sum is done when all its members have come to it.
void expect_that_all_sums_end(const Plan& plan) {
  const int workers = plan.ranks() * plan.replicas();
  std::vector<std::vector<Reduction>> orders;
  for (int worker = 0; worker < workers; ++worker) orders.push_back(order_of(plan, worker));
  std::vector<std::size_t> next(orders.size());
  const auto at = [&](int worker) -> const Reduction* {
    const auto w = static_cast<std::size_t>(worker);
    return next[w] < orders[w].size() ? &orders[w][next[w]] : nullptr;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (int worker = 0; worker < workers; ++worker) {
      const Reduction* const mine = at(worker);
      if (mine == nullptr) continue;
      const std::vector<int> members = mine->members;
      EXPECT_THAT(members, testing::Contains(worker));
      const std::string name = name_of(plan, worker, *mine);
      const bool all = std::all_of(members.begin(), members.end(), [&](int member) {
        const Reduction* const theirs = at(member);
        return theirs != nullptr && theirs->members == members && name_of(plan, member, *theirs) == name;
      });
      if (!all) continue;
      for (const int member : members) ++next[static_cast<std::size_t>(member)];
      moved = true;
    }
  }
  for (int worker = 0; worker < workers; ++worker) {
    EXPECT_EQ(at(worker), nullptr) << "worker " << worker << " waits for " << name_of(plan, worker, *at(worker));
  }
}

TEST(ReductionOrder, AllMembersAgreeUnderEverySchedule) {
  int tried = 0;
  for (const ScheduleKind& kind : schedule_kinds()) {
    for (const auto& [ranks, stages_per_rank] : {std::pair{1, 1}, {2, 1}, {4, 1}, {2, 2}, {4, 2}}) {
      const ScheduleShape shape{.ranks = ranks, .stages_per_rank = stages_per_rank, .microbatches = 8};
      if (!kind.refuse(shape).empty()) continue;
      const ComputeSchedule schedule = kind.generate(shape);
      if (schedule.forward_only || schedule.updates != WeightUpdates::synchronous) continue;
      for (const int replicas : {1, 2, 3}) {
        SCOPED_TRACE(
            fmt::format("{}, {} ranks, {} stages each, {} replicas", kind.name, ranks, stages_per_rank, replicas));
        expect_that_all_sums_end(scheduled(std::string(kind.name), ranks, stages_per_rank, replicas));
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 100);
}

TEST(ReductionOrder, BucketsStartFromTheLastLayersOnDuringTheLastBackward) {
  const Plan plan = scheduled("1f1b", 1, 1, 2);
  const LoweredSchedule schedule = plan.lowered();
  const RankLayout layout = lay_out_rank(plan, schedule, 0);
  const std::vector<Reduction> order = order_of(plan, 0);
  const auto& buckets = layout.stages.front().layout.buckets;
  ASSERT_EQ(order.size(), buckets.size());
  ASSERT_EQ(buckets.size(), 7U) << "the embedding, five blocks, the last block with the head";
  for (std::size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i].bucket, buckets.size() - 1 - i);
    EXPECT_TRUE(order[i].over_nccl);
    ASSERT_TRUE(order[i].during.has_value());
    EXPECT_EQ(to_string(schedule.ranks.front()[*order[i].during]), "0B7");
  }
}

TEST(ReductionOrder, ATableOfTwoStagesIsSummedOverBothBeforeTheReplicas) {
  const Plan plan = scheduled("1f1b", 2, 1, 2);
  for (int worker = 0; worker < 4; ++worker) {
    const std::vector<Reduction> order = order_of(plan, worker);
    const auto tied = std::find_if(order.begin(), order.end(),
                                   [&](const Reduction& r) { return name_of(plan, worker, r) == "tied"; });
    ASSERT_NE(tied, order.end());
    EXPECT_EQ(tied->members, (worker < 2 ? std::vector{0, 1} : std::vector{2, 3}));
    EXPECT_TRUE(std::all_of(order.begin(), tied, [](const Reduction& r) { return r.during.has_value(); }));
    ASSERT_EQ(order.end() - tied, 2) << "the table over both ends, then over the replicas";
    EXPECT_EQ(tied[1].bucket, tied->bucket);
    EXPECT_EQ(tied[1].members, (std::vector{worker % 2, worker % 2 + 2}));
  }
}

TEST(ReductionOrder, SlicesOfOneGpuSumByPeerCopiesAfterTheBackward) {
  Plan plan = scheduled("1f1b", 2, 1, 2);
  DeviceType& type = plan.cluster.device_types.front();
  type.multiprocessors = 32;
  type.gpu_multiprocessors = 132;
  for (const Reduction& r : order_of(plan, 0)) {
    EXPECT_FALSE(r.over_nccl);
    EXPECT_FALSE(r.during.has_value());
  }
  for (const Reduction& r : order_of(scheduled("1f1b", 2, 1, 2), 0, false)) EXPECT_FALSE(r.over_nccl);
}

}  // namespace
}  // namespace stagecraft::cuda
