// Where a rank's tensors lie on a GPU: pure arithmetic, tested on any machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "models/cost/memory.hpp"
#include "models/error.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/cuda/local_gpu.hpp"
#include "runtime/cuda/module.hpp"
#include "tests/runtime/plans.hpp"

namespace stagecraft::cuda {
namespace {

Plan plan_of(const std::string& schedule, int stages, Recompute recompute = Recompute::none) {
  Transformer t = tiny_gpt(true);
  t.layers = 6;
  PlanShape shape{.cuts = {}, .microbatches = 8, .schedule = schedule, .recompute = recompute};
  for (int s = 1; s < stages; ++s) shape.cuts.push_back(s * (t.layers + 2) / stages);
  Plan plan = make_plan(t, shape);
  plan.precision = DataType::bf16;
  return plan;
}

TEST(CudaLayout, TheArenaIsTheSumOfWhatItIsFor) {
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    for (const Recompute recompute : {Recompute::none, Recompute::full}) {
      const Plan plan = plan_of(schedule, 4, recompute);
      for (int rank = 0; rank < 4; ++rank) {
        const RankLayout layout = lay_out_rank(plan, plan.lowered(), rank);
        EXPECT_EQ(layout.arena_bytes, layout.need.total());
        EXPECT_EQ(layout.arena_bytes % 256, 0);
      }
    }
  }
}

// The slices that checkpoints fill are as large as the tensors that the arena has for them, and a shard of two needs
// little more than half of the memory.
TEST(CudaLayout, ShardsHoldTheirPartOfEveryTensor) {
  for (const bool sequence_parallel : {false, true}) {
    Transformer t = tiny_gpt(true);
    t.hidden = 512;
    t.ffn = 2048;
    t.heads = t.kv_heads = 8;
    t.head_size = 64;
    t.vocabulary = 5001;
    const PlanShape shape{.cuts = {2}, .microbatches = 4, .microbatch = 64, .sequence = 16};
    PlanShape split = shape;
    split.tensor = 2;
    split.sequence_parallel = sequence_parallel;
    const Plan whole = make_plan(t, shape), plan = make_plan(t, split);
    for (int rank = 0; rank < 2; ++rank) {
      const std::int64_t undivided = lay_out_rank(whole, whole.lowered(), rank).arena_bytes;
      for (int shard = 0; shard < 2; ++shard) {
        const RankLayout layout = lay_out_rank(plan, plan.lowered(), rank, shard);
        EXPECT_EQ(layout.arena_bytes, layout.need.total());
        EXPECT_LT(layout.arena_bytes, undivided * 3 / 4);
        for (const RankLayout::Stage& stage : layout.stages) {
          ASSERT_EQ(stage.held.size(), stage.layout.entries.size());
          for (std::size_t i = 0; i < stage.held.size(); ++i) {
            EXPECT_EQ(stage.held[i].slice.count(), stage.layout.entries[i].parameter.count());
            EXPECT_EQ(stage.held[i].parameter.name, stage.layout.entries[i].parameter.name);
          }
        }
      }
    }
  }
}

TEST(CudaLayout, OneFOneBKeepsStagesMinusRankSlabsAndGPipeAll) {
  for (int rank = 0; rank < 4; ++rank) {
    const Plan one_f_one_b = plan_of("1f1b", 4), gpipe = plan_of("gpipe", 4);
    EXPECT_EQ(lay_out_rank(one_f_one_b, one_f_one_b.lowered(), rank).stages.front().slabs, 4 - rank);
    EXPECT_EQ(lay_out_rank(gpipe, gpipe.lowered(), rank).stages.front().slabs, 8);
  }
}

// No micro-batch finds its slab or split in use by another.
// Into a slab that the computation before only leaves, the next input could not come beside that computation.
TEST(CudaLayout, AnInputWaitsInTheInboxWhereItsSlabIsInUseUntilItsForward) {
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1"}) {
    const Plan plan = plan_of(schedule, 4);
    const LoweredSchedule lowered = plan.lowered();
    for (int rank = 0; rank < 4; ++rank) {
      const RankLayout layout = lay_out_rank(plan, lowered, rank);
      const auto& actions = lowered.ranks[static_cast<std::size_t>(rank)];
      int received = 0, in_inbox = 0;
      std::vector<Action> waiting;  // the forward of what the inbox holds
      for (std::size_t i = 0; i < actions.size(); ++i) {
        const Action& action = actions[i];
        const Place& place = layout.places[i];
        if (action.kind == ActionKind::recv_forward) {
          ++received;
          if (!place.inbox) continue;
          ++in_inbox;
          EXPECT_TRUE(waiting.empty()) << schedule << ' ' << to_string(action) << " would be written over";
          waiting = {{ActionKind::forward, action.stage, action.microbatch}};
        } else if (action.kind == ActionKind::forward) {
          EXPECT_EQ(place.inbox, waiting == std::vector{action}) << schedule << ' ' << to_string(action);
          if (place.inbox) waiting.clear();
        } else {
          EXPECT_FALSE(place.inbox);
        }
      }
      EXPECT_TRUE(waiting.empty());
      // All but those that find a slab which nothing has used.
      const int slabs = layout.stages.front().slabs;
      const int reused = schedule == "gpipe" || rank == 0 ? 0 : received - slabs;
      EXPECT_EQ(in_inbox, reused) << schedule << ' ' << rank;
    }
  }
}

TEST(CudaLayout, PlacesNeverOverlap) {
  for (const std::string schedule : {"gpipe", "1f1b", "zb-h1", "zb-h2"}) {
    const Plan plan = plan_of(schedule, 4);
    const LoweredSchedule lowered = plan.lowered();
    for (int rank = 0; rank < 4; ++rank) {
      const RankLayout layout = lay_out_rank(plan, lowered, rank);
      const auto& actions = lowered.ranks[static_cast<std::size_t>(rank)];
      std::map<int, int> slab_of;  // by micro-batch
      int first_weights = 0;
      for (std::size_t i = 0; i < actions.size(); ++i) {
        const Place& place = layout.places[i];
        const ActionKind kind = actions[i].kind;
        const int m = actions[i].microbatch.value;
        const bool opens = kind == ActionKind::recv_forward || (rank == 0 && kind == ActionKind::forward);
        if (opens) {
          for (const auto& [other, slab] : slab_of)
            EXPECT_NE(slab, place.slab) << "micro-batches " << m << ", " << other;
          slab_of[m] = place.slab;
        } else if (is_compute(kind)) {
          EXPECT_EQ(slab_of.at(m), place.slab);
        }
        if (kind == ActionKind::backward || kind == ActionKind::backward_weight) slab_of.erase(m);
        first_weights += place.first ? 1 : 0;
      }
      EXPECT_TRUE(slab_of.empty());
      EXPECT_EQ(first_weights, 1) << "one weight gradient of a step replaces what is there";
    }
  }
}

TEST(CudaLayout, TokenTablesArePaddedAndTheirCopiesComeLast) {
  const Plan plan = plan_of("1f1b", 4);
  const RankLayout last = lay_out_rank(plan, plan.lowered(), 3);
  const StageLayout& layout = last.stages.front().layout;
  const ParameterEntry& table = layout.entries.back();
  EXPECT_TRUE(table.copy);
  EXPECT_EQ(table.parameter.name, token_table);
  EXPECT_EQ(table.elements, 128 * 16) << "32 rows, rounded up to 128";
  EXPECT_EQ(layout.owned_elements, table.offset);
  EXPECT_EQ(padded_vocabulary(*plan.network.transformer), 128);
}

TEST(CudaLayout, FullRecomputationKeepsOnlyTheInputsOfBlocks) {
  const auto stash = [](Recompute recompute) {
    const Plan plan = plan_of("1f1b", 1, recompute);
    return layer_stash_bytes(lay_out_rank(plan, plan.lowered(), 0).stages.front().layout, 1);
  };
  EXPECT_EQ(stash(Recompute::full), 8 * 16 * 2) << "8 rows of 16 channels of two bytes";
  EXPECT_GT(stash(Recompute::none), stash(Recompute::full));
}

// Every element of every tensor is kept by one replica, and the shares are equal.
TEST(CudaLayout, AShardedOptimizerIsSharedOutWithoutGapsOrOverlaps) {
  for (const int stages : {1, 2}) {
    Plan plan = plan_of("1f1b", stages);
    plan.network.transformer->hidden = 640;  // so that a block is a bucket
    plan.network.transformer->ffn = 3840;
    const RankLayout whole = lay_out_rank(plan, plan.lowered(), stages - 1);
    plan.devices.resize(3, plan.devices.front());
    plan.layout.zero = 1;
    const RankLayout sharded = lay_out_rank(plan, plan.lowered(), stages - 1);
    const StageLayout& layout = sharded.stages.front().layout;
    EXPECT_GT(layout.buckets.size(), 2U);
    std::set<std::int64_t> kept_in_state;
    for (const ParameterEntry& entry : layout.entries) {
      std::int64_t next = 0;
      for (int replica = 0; replica < 3; ++replica) {
        const KeptElements kept = kept_elements(layout, entry, replica);
        if (kept.first == kept.last) continue;
        EXPECT_EQ(kept.first, next) << entry.parameter.name;
        EXPECT_GE(kept.state, 0);
        EXPECT_LE(kept.state + kept.last - kept.first, layout.state_elements);
        EXPECT_EQ((entry.offset + kept.first) % 64, 0) << "aligned as the kernels expect";
        if (replica == 1) {
          EXPECT_TRUE(kept_in_state.insert(kept.state).second);
        }
        next = kept.last;
      }
      EXPECT_EQ(next, entry.elements) << entry.parameter.name;
    }
    const auto third = static_cast<double>(whole.need.optimizer_state) / 3;
    EXPECT_NEAR(static_cast<double>(sharded.need.optimizer_state), third, 0.01 * third);
    EXPECT_NEAR(static_cast<double>(sharded.need.gradients), static_cast<double>(whole.need.gradients), 0.01 * third);
    // As the planner counts: what AdamW and the fp32 master weights take is divided.
    const double planned = parameter_bytes(DataType::bf16, Optimizer::adamw).optimizer_state.value() *
                           static_cast<double>(whole.stages.front().layout.elements);
    const auto held = [](const MemoryNeed& need) { return static_cast<double>(need.weights + need.optimizer_state); };
    EXPECT_NEAR(held(whole.need) - held(sharded.need), planned * 2 / 3, 0.01 * planned);
  }
}

TEST(CudaLayout, WithoutShardingEveryReplicaKeepsAll) {
  const Plan plan = plan_of("1f1b", 2);
  const RankLayout rank = lay_out_rank(plan, plan.lowered(), 1);
  const StageLayout& layout = rank.stages.front().layout;
  EXPECT_EQ(layout.state_elements, layout.elements);
  for (const ParameterEntry& entry : layout.entries) {
    for (const int replica : {0, 1}) {
      const KeptElements kept = kept_elements(layout, entry, replica);
      EXPECT_EQ(kept.first, 0);
      EXPECT_EQ(kept.last, entry.elements);
      EXPECT_EQ(kept.state, entry.offset);
    }
  }
}

// GPUs with 132 multiprocessors: whole, cut in four, cut unevenly.
TEST(CudaPlace, SlicesFillOneGpuAfterTheOther) {
  DeviceType whole, quarter, half;
  whole.kind = quarter.kind = half.kind = DeviceKind::gpu;
  quarter.gpu_multiprocessors = half.gpu_multiprocessors = 132;
  quarter.multiprocessors = 32, half.multiprocessors = 64;
  Plan plan;
  plan.cluster.device_types = {whole, quarter, half};
  plan.cluster.nodes.resize(1);
  plan.devices.emplace_back();
  for (const int type : {0, 1, 1, 1, 1, 1, 2, 2, 0}) {
    const DeviceId id{static_cast<std::int32_t>(plan.cluster.devices.size())};
    plan.cluster.devices.push_back({type, 0});
    plan.cluster.nodes.front().devices.push_back(id);
    plan.devices.front().push_back(id);
  }
  const auto place = [&](int rank) { return device_place(plan, 0, rank); };
  EXPECT_EQ(place(0).gpu, 0);
  EXPECT_TRUE(place(0).slices.empty());
  EXPECT_EQ(place(1).gpu, 1);
  EXPECT_THAT(place(1).slices, testing::ElementsAre(32, 32, 32, 32));
  EXPECT_EQ(place(4).gpu, 1);
  EXPECT_EQ(place(4).slice, 3);
  EXPECT_EQ(place(5).gpu, 2) << "a fifth of 32 does not fit";
  EXPECT_THAT(place(6).slices, testing::ElementsAre(32, 64));
  EXPECT_EQ(place(6).slice, 1);
  EXPECT_EQ(place(7).gpu, 3);
  EXPECT_EQ(place(8).gpu, 4);
  EXPECT_TRUE(place(8).slices.empty());
}

Gpu some_gpu() {
  return {.name = "GPU",
          .major = 9,
          .multiprocessors = 132,
          .memory_bytes = std::int64_t{100} << 30,
          .free_bytes = std::int64_t{99} << 30,
          .memory_bandwidth = 4e12,
          .multiprocessor_clock = 2e9};
}

TEST(LocalGpu, IsOneDeviceAGpuOrOneASlice) {
  const std::vector<Gpu> gpus(2, some_gpu());
  EXPECT_EQ(describe("local-gpu", gpus).devices.size(), 2U);
  const Cluster quarters = describe("local-gpu:slices=4", gpus);
  EXPECT_EQ(quarters.devices.size(), 8U);
  ASSERT_EQ(quarters.device_types.size(), 1U);
  EXPECT_EQ(quarters.device_types.front().multiprocessors, 32) << "a quarter of 132 in steps of 8";
  const Cluster unlike = describe("local-gpu:slices=64+32+32", gpus);
  EXPECT_EQ(unlike.devices.size(), 6U);
  EXPECT_EQ(unlike.device_types.size(), 2U);
}

TEST(LocalGpu, KeepsItsSlicesInAFile) {
  const Cluster cluster = describe("local-gpu:slices=64+32+32", {some_gpu()});
  const Json json = to_json(cluster);
  EXPECT_EQ(cluster_from_json(JsonValue(json, "cluster.json")), cluster);
}

TEST(LocalGpu, RefusesSlicesThatDoNotFit) {
  for (const std::string name : {"local-gpu:slices=0", "local-gpu:slices=17", "local-gpu:slices=64+20",
                                 "local-gpu:slices=64+64+8", "local-gpu:slices=", "local-gpu:4"}) {
    EXPECT_TRUE(is_local_gpu(name));
    EXPECT_THROW(describe(name, {some_gpu()}), Error) << name;
  }
  EXPECT_THROW(describe("local-gpu", {}), Error);
  EXPECT_FALSE(is_local_gpu("local-cpu"));
}

}  // namespace
}  // namespace stagecraft::cuda
