#include "planner/layout_space.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "models/cost/schedule_forms.hpp"
#include "models/error.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"
#include "planner/layout_search.hpp"
#include "tests/planner/layout_cases.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

TEST(LayoutSpace, HasOnlyTheStagesThatArePlacedByHand) {
  LayoutCase c;
  c.choices.devices = 8;
  c.choices.context = 1;
  c.stage_blocks = {1, 2, 2, 1};
  const StepModel model = model_of(c);
  const LayoutSpace space(model, c.choices);
  std::set<std::int32_t> pipelines;
  sample(space, [&](const ParallelLayout& layout, const auto&) {
    EXPECT_EQ(layout.stages(), 4) << to_string(layout);
    EXPECT_EQ(layout.first_stage_layers, 0);
    pipelines.insert(layout.pipeline);
    std::int64_t blocks = 0;
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) blocks += model.layers_of(layout, rank);
    EXPECT_EQ(blocks, 6) << to_string(layout);
  });
  EXPECT_EQ(pipelines, (std::set<std::int32_t>{2, 4}));
  ParallelLayout layout = parse_layout("p2 v2 b1 m12 interleaved-1f1b");
  EXPECT_EQ(model.layers_of(layout, 0), 1 + 2);
  layout.schedule = PipelineSchedule::zb_v;
  EXPECT_EQ(model.layers_of(layout, 0), 1 + 1);
  EXPECT_EQ(model.layers_of(layout, 1), 2 + 2);
}

TEST(LayoutSpace, KeepsTheEndsThatAreFixed) {
  LayoutCase c;
  c.choices.devices = 8;
  c.choices.context = 1;
  c.choices.last_stage_layers = no_layers;
  const StepModel model = model_of(c);
  std::set<std::int32_t> firsts;
  sample(LayoutSpace(model, c.choices), [&](const ParallelLayout& layout, const auto&) {
    EXPECT_GT(layout.pipeline, 1);
    EXPECT_EQ(model.layers_of(layout, layout.pipeline - 1), 0) << to_string(layout);
    firsts.insert(layout.first_stage_layers);
  });
  EXPECT_GT(firsts.size(), 1U) << "the other end is searched";
  c.choices.first_stage_layers = 4;
  c.choices.pipeline = 3;
  sample(LayoutSpace(model, c.choices), [&](const ParallelLayout& layout, const auto&) {
    EXPECT_EQ(model.layers_of(layout, 0), 4) << to_string(layout);
    EXPECT_EQ(model.layers_of(layout, 1), 2) << to_string(layout);
  });
}

TEST(LayoutSpace, GivesTheStageWithALargeHeadFewerBlocks) {
  TrainingJob job;
  job.network = *load_network("gpt3-1.3b").transformer;
  job.network.layers = 16;
  job.network.vocabulary = 250'000;  // the head takes as long as ten blocks
  job.network.tied_head = false;
  job.global_batch = 16;
  job.sequence = 2048;
  const StepModel model(job, machine_of(load_cluster("dgx-a100")));
  for (const int ranks : {2, 4}) {
    LayoutChoices choices;
    choices.devices = ranks;
    choices.pipeline = ranks;
    choices.schedule = PipelineSchedule::one_f_one_b;
    ParallelLayout layout = search_layouts(LayoutSpace(model, choices)).best.front().layout;
    EXPECT_EQ(layout.last_stage_layers, ranks == 2 ? 4 : 1) << to_string(layout);
    const Seconds uneven = model.estimate(layout).time;
    layout.first_stage_layers = layout.last_stage_layers = 0;
    EXPECT_LT(uneven, 0.9 * model.estimate(layout).time) << ranks;
  }
}

std::string complaint(const LayoutCase& c) {
  const StepModel model = model_of(c);
  try {
    const LayoutSpace space(model, c.choices);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(LayoutSpace, NamesChoicesThatNoLayoutCanMeet) {
  LayoutCase c;
  c.choices.devices = 8;
  c.choices.tensor = 5;
  EXPECT_EQ(complaint(c), "--tensor: tensor 5 does not divide 16 heads");
  c.choices = {};
  c.choices.devices = 8;
  c.choices.expert = 2;
  EXPECT_THAT(complaint(c), HasSubstr("--expert: expected 1, as the network has no experts, got 2"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.data = 5;
  EXPECT_THAT(complaint(c), HasSubstr("--global-batch: expected a multiple of replicas 5"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.tensor = 4;
  c.choices.pipeline = 4;
  EXPECT_THAT(complaint(c), HasSubstr("need 16 devices, but 8 can be used"));
  c.choices = {};
  c.choices.devices = 8;
  c.choices.pipeline = 2;
  c.choices.schedule = PipelineSchedule::one_f_one_b;
  c.choices.virtual_stages = 3;
  EXPECT_EQ(complaint(c), "--schedule: 1f1b has 1 stage a rank, not 3");
}

TEST(LayoutSpace, FoldsExpertsWithSequenceParallelismAndWhereTheFrameworkCan) {
  LayoutCase c;
  c.experts = 8;
  c.choices.devices = 8;
  c.choices.expert = 8;
  int folded = 0;
  const StepModel model = model_of(c);
  const LayoutSpace space(model, c.choices);
  for (const Widths& widths : space.widths()) {
    if (!widths.folds_experts()) continue;
    ++folded;
    EXPECT_EQ(std::int64_t{widths.tensor} * widths.context * widths.data % widths.expert, 0);
    EXPECT_EQ(space.sequence_parallel(widths), std::vector<bool>{true});
  }
  EXPECT_GT(folded, 0);
  for (const FrameworkPreset& preset : load_calibration().frameworks) {
    if (preset.name != "megatron-core" && preset.name != "megatron-deepspeed") continue;
    c.choices.abilities = preset.runs;
    c.choices.tensor = 4;
    c.choices.pipeline = 1;
    c.choices.context = 1;
    c.choices.data = 2;
    if (preset.name == "megatron-core") {
      EXPECT_EQ(LayoutSpace(model, c.choices).widths().size(), 1u);
    } else {
      EXPECT_EQ(complaint(c),
                "--expert: expected a divisor of data x context 2, as megatron-deepspeed has nothing "
                "else, got 8");
    }
  }
}

TEST(LayoutSpace, NamesChoicesThatContradictEachOther) {
  const auto complaint_about = [](auto choose) {
    LayoutCase c;
    c.choices.devices = 8;
    choose(c.choices);
    return complaint(c);
  };
  const auto recomputing = [&](Recompute mode, int layers) {
    return complaint_about([&](LayoutChoices& c) { c.recompute = mode, c.recomputed_layers = layers, c.pipeline = 1; });
  };
  const auto recompute_error = [](const char* rest) { return std::string("--recompute-layers: expected ") + rest; };
  EXPECT_EQ(recomputing(Recompute::none, 2), recompute_error("--recompute selective or full with it, got 2 with none"));
  EXPECT_EQ(recomputing(Recompute::none, fewest_layers),
            recompute_error("--recompute selective or full with it, got fewest with none"));
  EXPECT_EQ(recomputing(Recompute::full, fewest_layers),
            recompute_error("a number of blocks on a pipeline of 1, got fewest"));
  EXPECT_EQ(recomputing(Recompute::full, 6), "");
  EXPECT_EQ(recomputing(Recompute::full, 7), recompute_error("at most the 6 blocks of a rank, got 7"));
  EXPECT_EQ(
      complaint_about([](LayoutChoices& c) { c.offload_activations = true, c.recomputed_layers = 1, c.pipeline = 1; }),
      recompute_error("all blocks of a rank with --offload-activations on, got 1"));

  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.first_stage_layers = 2, c.pipeline = 1; }),
            "--first-stage-layers: expected a pipeline of 2 or more with it, got 2 on 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.last_stage_layers = 2, c.virtual_stages = 2; }),
            "--last-stage-layers: expected one stage a rank with it, got 2");
  EXPECT_EQ(
      complaint_about([](LayoutChoices& c) { c.first_stage_layers = 4, c.last_stage_layers = 1, c.pipeline = 2; }),
      "--last-stage-layers: expected the rest beside a first stage of 4 and 6 blocks, got 1");
  {
    LayoutCase c;
    c.choices.devices = 8;
    c.choices.recomputed_layers = listed_layers;
    c.choices.pipeline = 4;
    c.recomputed_blocks = {1, 0};
    EXPECT_EQ(complaint(c), recompute_error("a number for each of the 4 pipeline ranks, got 1,0"));
    c = {};
    c.choices.devices = 8;
    c.choices.pipeline = 3;
    c.stage_blocks = {2, 1, 1, 2};
    EXPECT_EQ(complaint(c), "--cuts: expected a multiple of pipeline 3 in stages, got 4");
  }

  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.sequence_parallel = true, c.tensor = 1; }),
            "--sequence-parallel: expected off, as a tensor-parallel width of 1 shards nothing, got on");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.sequence_parallel = true, c.tensor = 2; }), "");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 3, c.stages = 4; }),
            "--stages: expected a multiple of pipeline 3, got 4");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 2, c.virtual_stages = 4; }),
            "--virtual-stages: expected at most 3 on a pipeline of 2, as there are 6 blocks, got 4");
  EXPECT_EQ(complaint_about(
                [](LayoutChoices& c) { c.virtual_stages = 1, c.schedule = PipelineSchedule::interleaved_one_f_one_b; }),
            "--virtual-stages: expected at least 2 with interleaved-1f1b, got 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.zero = 1, c.data = c.context = 1; }),
            "--zero: expected 0 with one replica, which shares nothing out, got 1");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.pipeline = 1, c.virtual_stages = 2; }),
            "--virtual-stages: expected 1 on a pipeline of 1, got 2");
  EXPECT_EQ(complaint_about([](LayoutChoices& c) { c.virtual_stages = 2, c.schedule = PipelineSchedule::one_f_one_b; }),
            "--schedule: 1f1b has 1 stage a rank, not 2");
  EXPECT_EQ(complaint_about(
                [](LayoutChoices& c) { c.pipeline = 2, c.stages = 4, c.schedule = PipelineSchedule::one_f_one_b; }),
            "--schedule: 1f1b has 1 stage a rank, not 2");
}

// With equal stages, as the step model takes them.
TEST(LayoutSpace, TakesSchedulesWhoseClosedFormIsTheirMakespan) {
  int compared = 0;
  for (const auto& [name, schedule] : pipeline_schedule_names()) {
    for (const int ranks : {2, 3, 4, 8}) {
      for (const int chunks : {1, 2, 3}) {
        for (const int microbatches : {1, 2, 4, 6, 8, 16, 24}) {
          if (!refuse_schedule(schedule, ranks, chunks, microbatches).empty()) continue;
          if (!has_exact_form(schedule, ranks, microbatches)) continue;
          const StageTimes times{1, 1.25, 0.75};
          const ComputeSchedule made = make_schedule(name, {ranks, chunks, microbatches});
          const double makespan =
              clock_schedule(made, std::vector<StageTimes>(static_cast<std::size_t>(made.stages), times), 0).makespan;
          const double form =
              3.0 * chunks * microbatches + bubble_time(schedule, ranks, chunks, microbatches, {1, 1.25, 0.75});
          EXPECT_NEAR(form, makespan, 0.03 * makespan)
              << name << " P=" << ranks << " V=" << chunks << " M=" << microbatches;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 200);
}

TEST(LayoutSpace, ListsEveryPointOnce) {
  LayoutCase c;
  c.choices.devices = 4;
  c.choices.context = 1;
  const StepModel model = model_of(c);
  const LayoutSpace space(model, c.choices);
  for (const Widths& widths : space.widths()) {
    std::set<DimensionOrder> orders;
    for (const DimensionOrder& order : space.orders(widths)) EXPECT_TRUE(orders.insert(order).second);
    for (const std::int32_t microbatch : space.microbatches_of(widths)) {
      EXPECT_EQ(12 % (widths.data * microbatch), 0);
    }
  }
}

}  // namespace
}  // namespace stagecraft
