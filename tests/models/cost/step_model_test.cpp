#include "models/cost/step_model.hpp"

#include <gmock/gmock.h>

#include <algorithm>

#include "models/network/layer_graph.hpp"

namespace stagecraft {
namespace {

TrainingJob gpt3(std::int64_t global_batch) {
  TrainingJob job{*load_network("gpt3-175b").transformer, global_batch, 2048};
  job.precision = DataType::fp16;
  job.fused_attention = false;
  return job;
}

StepModel model() { return {gpt3(64), machine_of(load_cluster("dgx-a100:8"))}; }

// Korthikanti et al. 2022 (arXiv 2205.05198), table 2: bytes a layer keeps, in units of s b h.
TEST(StepModel, KeepsTheActivationsOfKorthikantisTable) {
  const StepModel step = model();
  const double sbh = 2048.0 * 12288;
  const double scores = 5.0 * 96 * 2048 / 12288;
  const auto stash = [&](const char* layout) { return step.shard(parse_layout(layout)).block.stash; };
  EXPECT_DOUBLE_EQ(stash("m64 1f1b")[0], sbh * (34 + scores));
  EXPECT_DOUBLE_EQ(stash("t8 m64 1f1b")[0], sbh * (10 + 24.0 / 8 + scores / 8));
  EXPECT_DOUBLE_EQ(stash("t8 m64 1f1b sp")[0], sbh * (34 + scores) / 8);
  EXPECT_DOUBLE_EQ(stash("t8 m64 1f1b sp")[1], sbh * 34 / 8);
  EXPECT_DOUBLE_EQ(stash("t8 m64 1f1b")[2], sbh * 2);
}

// Rajbhandari et al. 2020 (arXiv 1910.02054), figure 1, here with fp32 gradients: 2 + 4 + 12 bytes a parameter.
TEST(StepModel, ShardsWhatEachStageOfZeroShards) {
  const StepModel step({*load_network("gpt3-1.3b").transformer, 64, 2048}, machine_of(load_cluster("dgx-a100")));
  const auto memory = [&](const char* text) {
    const ParallelLayout layout = parse_layout(text);
    return step.memory(layout, step.shard(layout), 0);
  };
  const StageMemory whole = memory("d8 m8 1f1b");
  EXPECT_DOUBLE_EQ(whole.gradients, 2 * whole.weights);
  EXPECT_DOUBLE_EQ(whole.optimizer_state, 6 * whole.weights);
  EXPECT_DOUBLE_EQ(memory("d8 m8 1f1b zero1").optimizer_state, whole.optimizer_state / 8);
  EXPECT_DOUBLE_EQ(memory("d8 m8 1f1b zero1").gradients, whole.gradients);
  EXPECT_DOUBLE_EQ(memory("d8 m8 1f1b zero2").gradients, whole.gradients / 8);
  EXPECT_DOUBLE_EQ(memory("d8 m8 1f1b zero2").weights, whole.weights);
  EXPECT_DOUBLE_EQ(memory("d8 m8 1f1b zero3").weights, whole.weights / 8);
}

// Per stage of a pipeline: a rank's share, whole where the framework sums gradients there, and breadth first those of
// two stages.
TEST(StepModel, ShardsTheStagesOfAPipeline) {
  Machine machine = machine_of(load_cluster("dgx-a100:2"));
  TrainingJob job{*load_network("gpt3-1.3b").transformer, 64, 2048};
  job.network.tied_head = false;
  const auto memory = [&](const std::string& text) {
    const StepModel step(job, machine);
    const ParallelLayout layout = parse_layout(text);
    return step.memory(layout, step.shard(layout), 1);
  };
  const StageMemory whole = memory("p4 d4 m16 1f1b");
  EXPECT_DOUBLE_EQ(memory("p4 d4 m16 1f1b zero2").gradients, whole.gradients / 4);
  EXPECT_DOUBLE_EQ(memory("p4 d4 m16 1f1b zero2").weights, whole.weights);
  EXPECT_DOUBLE_EQ(memory("p4 d4 m16 1f1b zero3").weights, whole.weights / 4);
  EXPECT_GT(memory("p4 d4 m16 1f1b zero3").workspace, whole.workspace) << "blocks that are gathered";
  EXPECT_DOUBLE_EQ(memory("p4 v2 d4 m16 looped-bfs zero3").weights, whole.weights);
  EXPECT_DOUBLE_EQ(memory("p4 v6 d4 m16 looped-bfs zero3").weights, (0.25 + 0.75 / 3) * whole.weights);
  EXPECT_DOUBLE_EQ(memory("p4 v6 d4 m16 looped-bfs zero2").gradients, (0.25 + 0.75 / 3) * whole.gradients);
  machine.framework.pipelined_sums = 1;
  EXPECT_DOUBLE_EQ(memory("p4 d4 m16 1f1b zero2").gradients, whole.gradients);
  EXPECT_DOUBLE_EQ(memory("d16 m4 1f1b zero3").weights,
                   4 * whole.weights / 16 + (memory("d16 m4 1f1b").weights - 4 * whole.weights) / 16);
}

// Reductions and gathers of ZeRO 2 and 3 come M times a step and stage, and once more for each rank that the fill waits
// for; breadth first and where the framework sums in the pipeline they come once.
TEST(StepModel, ExchangesWithReplicasAsOftenAsTheScheduleAndTheFrameworkSay) {
  Machine machine = machine_of(load_cluster("dgx-a100:2"));
  TrainingJob job{*load_network("gpt3-1.3b").transformer, 64, 2048};
  job.network.tied_head = false;
  const auto data = [&](const std::string& text) {
    return StepModel(job, machine).estimate(parse_layout(text)).terms.data;
  };
  const double P = 4, M = 16, blocks = 24 / P;
  const ParallelLayout layout = parse_layout("p4 d4 m16 1f1b zero3");
  const StepModel step(job, machine);
  const Shard shard = step.shard(layout);
  const GroupShape replicas = replica_groups(machine, layout).replicas;
  const auto each = [&](double parameters, bool gathers) {
    const double gather = gathers ? 2 * all_gather_time(machine, replicas, 2 * parameters) : 0;
    return gather + reduce_scatter_time(machine, replicas, machine.framework.reduced_bytes * parameters);
  };
  const double mean = blocks * shard.block.parameters, most = mean + shard.embedding.parameters;
  EXPECT_NEAR(data("p4 d4 m16 1f1b zero3"), M * each(most, true) + (P - 1) * each(mean, true), 1e-9);
  const double gather = all_gather_time(machine, replicas, 2 * most);
  EXPECT_NEAR(data("p4 d4 m16 1f1b zero2"), M * each(most, false) + gather + (P - 1) * each(mean, false), 1e-9);
  EXPECT_LT(data("p4 v3 d4 m16 looped-bfs zero3"), 2 * data("p4 v3 d4 m16 looped-bfs zero1"));
  EXPECT_GT(data("p4 v3 d4 m16 interleaved-1f1b zero3"), 10 * data("p4 v3 d4 m16 interleaved-1f1b zero1"));
  const double once = data("p4 d4 m16 1f1b zero1");
  machine.framework.pipelined_sums = 1;
  EXPECT_DOUBLE_EQ(data("p4 d4 m16 1f1b zero2"), once) << "without overlap it is the same exchange";
  EXPECT_GT(data("p4 d4 m16 1f1b zero3"), 5 * once);
}

// With a context of one device its place among the dimensions means nothing.
TEST(StepModel, PricesTheSameDevicesAlikeInAnyOrder) {
  const StepModel step = model();
  const auto data = [&](const std::string& layout, const char* order) {
    return step.estimate(parse_layout(layout + " order=" + order)).terms.data;
  };
  EXPECT_EQ(data("p2 t8 d4 m16 1f1b", "tpcd"), data("p2 t8 d4 m16 1f1b", "ctpd"));
  EXPECT_EQ(data("p2 t8 d4 m16 1f1b", "tpcd"), data("p2 t8 d4 m16 1f1b", "tpdc"));
  EXPECT_GT(data("t4 c2 d8 m8 1f1b", "ctdp"), data("t4 d16 m4 1f1b", "dtcp")) << "pairs, with eight between them";
}

TEST(StepModel, GathersInputsAgainWhereTheFrameworkDoes) {
  Machine machine = model().machine();
  const ParallelLayout layout = parse_layout("t8 m64 1f1b sp");
  const double once = model().shard(layout).block.tensor_backward;
  const double gather = all_gather_time(machine, group_of(machine, 1, 8), 2.0 * 2048 * 12288);
  machine.framework.repeated_gathers = 0.5;
  const LayerShard block = StepModel(gpt3(64), machine).shard(layout).block;
  EXPECT_DOUBLE_EQ(block.tensor_backward, once + 0.5 * 2 * gather);
  EXPECT_EQ(block.tensor_forward, model().shard(layout).block.tensor_forward);
  const ParallelLayout alike = parse_layout("t8 m64 1f1b");
  EXPECT_EQ(StepModel(gpt3(64), machine).shard(alike).block.tensor_backward,
            model().shard(alike).block.tensor_backward);
}

// Shoeybi et al. 2019 (arXiv 1909.08053), section 3: two all-reduces of s b h elements forward, two backward; with
// sequence parallelism an all-gather and a reduce-scatter each.
// Each constant scales one term: what it adds grows evenly with it, and only for jobs that have that kernel.
TEST(StepModel, TakesLongerForAttentionByOlderKernels) {
  const auto forward = [](const TrainingJob& job, double first_flash, double eager_scores) {
    Machine machine = model().machine();
    machine.framework.first_flash = first_flash;
    machine.framework.eager_scores = eager_scores;
    return StepModel(job, machine).shard(parse_layout("m64 1f1b")).block.forward;
  };
  TrainingJob flash = gpt3(64);
  flash.fused_attention = true;
  TrainingJob first = flash, eager = gpt3(64);
  first.first_flash = true;
  eager.eager_scores = true;
  EXPECT_EQ(forward(flash, 3, 3), forward(flash, 1, 1));
  EXPECT_EQ(forward(gpt3(64), 3, 3), forward(gpt3(64), 1, 1));
  EXPECT_EQ(forward(first, 1, 3), forward(flash, 1, 1));
  const double attention = forward(first, 2, 1) - forward(first, 1, 1);
  EXPECT_GT(attention, 0);
  EXPECT_NEAR(forward(first, 3, 1), forward(first, 1, 1) + 2 * attention, 1e-12);
  const Machine machine = model().machine();
  const double scores = 6.0 * 96 * 2048 * 2048 * 2;  // bytes: passes with dropout, heads, tokens, fp16
  EXPECT_NEAR(forward(eager, 1, 2) - forward(eager, 1, 1),
              scores / (machine.device.memory_bandwidth.value() * machine.constants.memory), 1e-6);
}

TEST(StepModel, CommunicatesWhatTensorParallelismNeeds) {
  const StepModel step = model();
  const double bytes = 2.0 * 2048 * 12288;
  const GroupShape group = group_of(step.machine(), 1, 8);
  const auto block = [&](const char* layout) { return step.shard(parse_layout(layout)).block; };
  const double reduce = all_reduce_time(step.machine(), group, bytes);
  EXPECT_DOUBLE_EQ(block("t8 m64").tensor_forward, 2 * reduce);
  EXPECT_DOUBLE_EQ(block("t8 m64").tensor_backward, 2 * reduce);
  EXPECT_DOUBLE_EQ(block("t8 m64").tensor_recompute[2], 2 * reduce);
  EXPECT_EQ(block("t8 m64").tensor_recompute[1], 0);
  const double pair = all_gather_time(step.machine(), group, bytes) + reduce_scatter_time(step.machine(), group, bytes);
  EXPECT_DOUBLE_EQ(block("t8 m64 sp").tensor_forward, 2 * pair);
  EXPECT_EQ(block("m64").tensor_forward, 0);
}

TEST(StepModel, SharesAShardWhereNothingItDependsOnDiffers) {
  const auto same = [](const char* a, const char* b) { return same_shard(parse_layout(a), parse_layout(b)); };
  EXPECT_TRUE(same("t1 p8 d2 m32 full", "p2 d8 m8 zero1 zb-h1"));
  EXPECT_FALSE(same("t2 m64", "t4 m64"));
  EXPECT_FALSE(same("m64", "b2 m32"));
  EXPECT_FALSE(same("t2 m64", "t2 m64 sp"));
  EXPECT_FALSE(same("t2 d2 m32", "t2 d2 m32 order=dtcp"));
  const StepModel step = model();
  for (const char* other : {"t8 p4 d2 m32 zero1 full", "t8 p4 d2 m32 zb-h1 overlap=gradients"}) {
    const ParallelLayout layout = parse_layout(other);
    ASSERT_TRUE(same_shard(layout, parse_layout("t8 p4 d2 m32")));
    EXPECT_EQ(step.estimate(layout, step.shard(parse_layout("t8 p4 d2 m32"))).time, step.estimate(layout).time);
  }
}

TEST(StepModel, CostsMoreWithoutWhatSavesTime) {
  const StepModel step = model();
  const auto time = [&](const char* layout) { return step.estimate(parse_layout(layout)).time; };
  EXPECT_LT(time("t8 p8 m64"), time("t8 p8 m64 full"));
  EXPECT_LT(time("t8 p8 m64 zb-h1"), time("t8 p8 m64 1f1b"));
  EXPECT_LT(time("t8 p8 v3 m64 interleaved-1f1b overlap=pipeline"), time("t8 p8 m64 1f1b overlap=pipeline"));
  EXPECT_LT(time("t8 d8 m8 overlap=gradients"), time("t8 d8 m8"));
  EXPECT_LT(time("t8 d8 m8 zero1"), time("t8 d8 m8 zero1 offload=optimizer"));
}

// A head of many outputs makes an even split uneven: the last stage with fewer blocks is faster.
TEST(StepModel, CountsTheHead) {
  const StepModel step({*load_network("llama-3-8b").transformer, 64, 8192}, machine_of(load_cluster("dgx-a100")));
  const auto time = [&](const char* layout) { return step.estimate(parse_layout(layout)).time; };
  EXPECT_LT(time("p8 m64 last=2"), time("p8 m64"));
  EXPECT_LT(time("p8 m64"), time("p8 m64 last=8"));
  EXPECT_EQ(step.layers_of(parse_layout("p8 m64 last=-1"), 7), 0);
}

TEST(StepModel, OffloadsToTheHostWhatItIsTold) {
  const StepModel step = model();
  const auto memory = [&](const char* text) {
    const ParallelLayout layout = parse_layout(text);
    return step.memory(layout, step.shard(layout), 0);
  };
  EXPECT_EQ(memory("t8 p8 m64 offload=optimizer").optimizer_state, 0);
  EXPECT_LT(memory("t8 p8 m64 offload=activations").activations, memory("t8 p8 m64").activations / 8);
}

// With 1f1b the first rank keeps most: it recomputes most, and no rank a block more than it needs.
TEST(StepModel, RecomputesOnEachRankAsFewBlocksAsItNeeds) {
  const StepModel step = model();
  const double capacity = step.machine().device.memory.value();
  const ParallelLayout layout = parse_layout("t8 p8 m64 sp full:fewest");
  const Shard shard = step.shard(layout);
  std::vector<std::int64_t> counts;
  for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
    counts.push_back(step.recomputed_of(layout, shard, rank));
    EXPECT_LE(step.memory(layout, shard, rank).total(), capacity);
    ParallelLayout fewer = layout;
    fewer.recomputed_layers = static_cast<std::int32_t>(counts.back()) - 1;
    if (counts.back() == 0) continue;
    EXPECT_GT(step.memory(fewer, shard, rank).total(), capacity) << "rank " << rank;
  }
  EXPECT_TRUE(std::is_sorted(counts.rbegin(), counts.rend()));
  EXPECT_GT(counts.front(), 0);
  EXPECT_EQ(counts.back(), 0);
  ParallelLayout alike = layout;
  alike.recomputed_layers = static_cast<std::int32_t>(counts.front());
  EXPECT_LT(step.estimate(layout, shard).time, step.estimate(alike, shard).time);
  EXPECT_TRUE(step.estimate(layout, shard).fits);
}

TEST(StepModel, SpreadsLayersEvenlyWithTheRestInTheMiddle) {
  const StepModel step = model();
  const auto layers = [&](const char* text) {
    const ParallelLayout layout = parse_layout(text);
    std::vector<std::int64_t> counts;
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) counts.push_back(step.layers_of(layout, rank));
    return counts;
  };
  EXPECT_THAT(layers("p5 m64"), testing::ElementsAre(19, 19, 20, 19, 19));
  EXPECT_THAT(layers("p7 m64"), testing::ElementsAre(13, 14, 14, 14, 14, 14, 13));
  EXPECT_THAT(layers("p4 m64 first=20 last=16"), testing::ElementsAre(20, 30, 30, 16));
  EXPECT_THAT(layers("p5 m64 last=4"), testing::ElementsAre(23, 23, 23, 23, 4));
}

// Where blocks do not divide over the ranks, the slowest and the fullest rank are those that the model looks at.
TEST(StepModel, FindsTheSlowestAndTheFullestOfUnevenRanks) {
  const auto slowest = [](std::int64_t layers) {
    TrainingJob job = gpt3(64);
    job.network.layers = layers;
    const StepModel step{job, machine_of(load_cluster("dgx-a100:8"))};
    const ParallelLayout layout = parse_layout("p6 m64 1f1b");
    return step.estimate(layout).terms.compute;
  };
  EXPECT_GT(slowest(97), slowest(96));
  EXPECT_EQ(slowest(97), slowest(98));

  const StepModel step = model();
  for (const char* rest : {"m64 1f1b", "m64 gpipe", "m4 1f1b", "m64 zb-h1", "m64 1f1b full", "m64 1f1b first=3",
                           "m64 1f1b last=2", "m64 1f1b first=2 last=3"}) {
    for (int ranks = 2; ranks <= 40; ++ranks) {
      const std::string text = "p" + std::to_string(ranks) + " " + rest;
      const ParallelLayout layout = parse_layout(text);
      const Shard shard = step.shard(layout);
      double most = 0;
      for (std::int32_t rank = 0; rank < ranks; ++rank) most = std::max(most, step.memory(layout, shard, rank).total());
      EXPECT_EQ(step.estimate(layout, shard).memory.total(), most) << text;
    }
  }
}

TEST(StepModel, NamesTheNumbersThatClash) {
  const StepModel step = model();
  const auto refusal = [&](const char* layout) { return step.refuse(parse_layout(layout)); };
  EXPECT_EQ(refusal("t8 p8 m64"), "");
  EXPECT_EQ(refusal("t8 p8 m32"), "data 1 x micro-batch 1 x micro-batches 32 is not the global batch 64");
  EXPECT_EQ(refusal("t5 m64"), "tensor 5 does not divide 96 heads");
  EXPECT_EQ(refusal("p99 m64"), "99 stages for 96 layers");
  EXPECT_EQ(refusal("m64 sp"), "sequence parallelism needs tensor parallelism");
  EXPECT_EQ(refusal("m8 d8 e2"), "expert parallelism needs a mixture of experts");
  EXPECT_EQ(refusal("p4 m64 first=40 last=60"), "40 and 60 layers at the ends do not fit 96 layers on 4 stages");
  EXPECT_EQ(refusal("p4 v3 m64 1f1b"), "1f1b has 1 stage a rank, not 3");
  EXPECT_EQ(refusal("p3 v4 m64 interleaved-1f1b"),
            "interleaved-1f1b takes a multiple of 3 micro-batches, the ranks, not 64");
}

TEST(StepModel, TermsAddUpToTheTimeAndNoneIsNegative) {
  const StepModel step = model();
  for (const char* text :
       {"t8 p8 m64 1f1b full", "t8 p4 v3 d2 m32 interleaved-1f1b sp selective zero1 overlap=gradients",
        "t2 c2 p4 d4 m16 zb-h1", "d64 m1 zero3 overlap=gradients,parameters"}) {
    const ParallelLayout layout = parse_layout(text);
    ASSERT_EQ(step.refuse(layout), "");
    const StepEstimate estimate = step.estimate(layout);
    EXPECT_DOUBLE_EQ(estimate.time.value(), estimate.terms.total());
    for (const double term : {estimate.terms.compute, estimate.terms.recompute, estimate.terms.bubble,
                              estimate.terms.tensor, estimate.terms.pipeline, estimate.terms.data,
                              estimate.terms.context, estimate.terms.optimizer, estimate.terms.other}) {
      EXPECT_GE(term, 0) << text;
    }
  }
}

}  // namespace
}  // namespace stagecraft
