#include "reports/comparison.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/error.hpp"
#include "reports/text_width.hpp"
#include "tests/reports/example.hpp"

namespace stagecraft {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const ComparisonRow& row(const Comparison& comparison, const std::string& name) {
  for (const ComparisonRow& candidate : comparison.rows) {
    if (candidate.name == name) return candidate;
  }
  throw std::out_of_range(name);
}

// The timeline of a plan that is exact but for the forward, measured at 4 s instead of 2 s.
struct Example {
  Plan plan = example_plan();
  std::vector<Trace> predicted{example_trace("timeline", 2, 3)};
  Trace measured = example_trace("cpu", 4, 3, 6);
  Comparison comparison = compare(&plan, predicted, measured);
};

TEST(Comparison, PutsClosedFormFirstAndThenTheTracesInTheirOrder) {
  Example example;
  example.predicted.push_back(example_trace("simgrid", 2, 3));
  example.predicted.push_back(example_trace("simgrid", 2, 3));
  EXPECT_THAT(compare(&example.plan, example.predicted, example.measured).rungs,
              ElementsAre("closed form", "timeline", "simgrid", "simgrid #2"));
}

TEST(Comparison, GivesErrorsInPercentOfTheMeasuredValue) {
  const Example example;
  // 2 F, send, F, 2 B overlapped, send, B, step: 2*2+1+2+3+3+1+3+1 = 18; with F = 4: 24.
  const ComparisonRow& step = row(example.comparison, "step time");
  EXPECT_EQ(step.predicted[1], 18);
  EXPECT_EQ(step.measured, 24);
  EXPECT_EQ(step.error[1], -25);
  const ComparisonRow& forward = row(example.comparison, "stage 1 F");
  EXPECT_EQ(forward.predicted[0], 2);
  EXPECT_EQ(forward.predicted[1], 2);
  EXPECT_EQ(forward.measured, 4);
  EXPECT_EQ(forward.error[1], -50);
}

TEST(Comparison, TakesTheClosedFormFromThePlansCosts) {
  const Example example;
  EXPECT_EQ(row(example.comparison, "step time").predicted[0], 16);
  EXPECT_EQ(row(example.comparison, "stage 0 B").predicted[0], 3);
  EXPECT_EQ(row(example.comparison, "stage 0 SEND_F").predicted[0], 1);
  EXPECT_EQ(row(example.comparison, "stage 1 SEND_B").predicted[0], 1);
  EXPECT_EQ(row(example.comparison, "stage 1 STEP").predicted[0], 1);
  EXPECT_EQ(row(example.comparison, "peak mem., rank 1").predicted[0], 2048);
  EXPECT_EQ(row(example.comparison, "peak mem., rank 1").measured, 1024);
  EXPECT_EQ(row(example.comparison, "peak mem., rank 1").error[0], 100);
  EXPECT_EQ(row(example.comparison, "bubble, idle/total").predicted[0], std::nullopt);
}

TEST(Comparison, ReportsBubblesAsDifferencesInPoints) {
  Example example;
  const ComparisonRow& bubble = row(example.comparison, "bubble, idle/total");
  // Rank 0 works from 0 to 17 (23), each rank for 10 (14).
  EXPECT_DOUBLE_EQ(*bubble.predicted[1], 1 - 10.0 / 17);
  EXPECT_DOUBLE_EQ(*bubble.measured, 1 - 14.0 / 23);
  EXPECT_DOUBLE_EQ(*bubble.error[1], 100 * (14.0 / 23 - 10.0 / 17));
}

TEST(Comparison, LeavesOutReceivesAndNamesNoRowTwice) {
  const Example example;
  std::vector<std::string> names;
  for (const ComparisonRow& entry : example.comparison.rows) {
    EXPECT_THAT(names, Not(Contains(entry.name)));
    EXPECT_THAT(entry.name, Not(HasSubstr("RECV")));
    names.push_back(entry.name);
  }
}

TEST(Comparison, FindsWorstAndMedianErrorOfEachRung) {
  const Example example;
  const RungError& timeline = example.comparison.errors[1];
  EXPECT_EQ(timeline.step_pct, -25);
  EXPECT_EQ(timeline.worst_pct, 50);
  EXPECT_EQ(timeline.worst_row, "stage 0 F");
  EXPECT_EQ(timeline.median_pct, 0);
  EXPECT_EQ(example.comparison.errors[0].worst_row, "peak mem., rank 1");
}

TEST(Comparison, ExceedsJudgesTheStepTimeOfTheLastRungEitherWay) {
  Example example;
  EXPECT_TRUE(example.comparison.exceeds(24.9));
  EXPECT_FALSE(example.comparison.exceeds(25));
  EXPECT_TRUE(compare(nullptr, {}, example.measured).exceeds(1e9));
}

TEST(Comparison, TakesTheLargestReplicasMemory) {
  Example example;
  example.measured.replicas = 2;
  example.measured.peak_memory = {Bytes(1), Bytes(5), Bytes(2), Bytes(4)};
  const Comparison comparison = compare(nullptr, {}, example.measured);
  EXPECT_EQ(row(comparison, "peak mem., rank 0").measured, 2);
  EXPECT_EQ(row(comparison, "peak mem., rank 1").measured, 5);
}

TEST(Comparison, WarnsOfNothingWhenAllIsWell) { EXPECT_THAT(Example().comparison.warnings, IsEmpty()); }

TEST(Comparison, WarnsWhenTracesAreOfDifferentPlans) {
  Example example;
  example.predicted[0].plan_digest = "other";
  EXPECT_THAT(compare(nullptr, example.predicted, example.measured).warnings,
              Contains("not the same plan: timeline has other; measured 00112233aabbccdd"));
  example.predicted[0].stages = 4;
  EXPECT_THAT(compare(nullptr, example.predicted, example.measured).warnings,
              Contains(HasSubstr("not the same pipeline: timeline has 4 stages")));
  example.predicted[0].network = "gpt2";
  EXPECT_THAT(compare(nullptr, example.predicted, example.measured).warnings,
              Contains("not the same network: timeline has gpt2; measured toy"));
  example.plan.schedule.microbatches = 7;
  example.plan.network.name = "llama";
  const auto warnings = compare(&example.plan, example.predicted, example.measured).warnings;
  EXPECT_THAT(warnings, Contains(HasSubstr("the plan has 2 stages, 7 micro-batches, 2 ranks, 1 replica;")));
  EXPECT_THAT(warnings, Contains("not the same network: the plan has llama; measured toy"));
}

TEST(Comparison, WithoutAMeasurementHoldsThePredictionsAgainstThePlanOrTheFirst) {
  Example example;
  example.predicted.push_back(example_trace("simgrid", 2, 3));
  const Comparison alone = tabulate(&example.plan, example.predicted);
  EXPECT_THAT(alone.rungs, ElementsAre("closed form", "timeline", "simgrid"));
  EXPECT_THAT(alone.warnings, IsEmpty());
  EXPECT_EQ(to_json(alone)["measured"], nullptr);
  example.predicted[1].network = "gpt2";
  EXPECT_THAT(tabulate(&example.plan, example.predicted).warnings,
              ElementsAre("not the same network: the plan has toy; simgrid gpt2"));
  EXPECT_THAT(tabulate(nullptr, example.predicted).warnings,
              ElementsAre("not the same network: timeline has toy; simgrid gpt2"));
}

TEST(Comparison, NamesTheFilesOfTwoTracesOfOneEngine) {
  Example example;
  ComparisonFiles files{"plan.json", "00112233aabbccdd", {"a.json"}, "m.json"};
  EXPECT_THAT(compare(&example.plan, example.predicted, example.measured, files).files, IsEmpty());
  example.predicted.push_back(example_trace("timeline", 2, 3));
  example.predicted[1].network = "gpt2";
  files.predicted = {"a.json", "b.json"};
  const Comparison measured = compare(&example.plan, example.predicted, example.measured, files);
  EXPECT_THAT(measured.files, ElementsAre("plan.json", "a.json", "b.json"));
  EXPECT_THAT(measured.warnings, ElementsAre("not the same network: b.json has gpt2; m.json toy"));
  EXPECT_EQ(to_json(measured)["files"]["timeline #2"], "b.json");
  const char* const line = "\nclosed form: plan.json, timeline: a.json, timeline #2: b.json\n";
  EXPECT_THAT(to_text(measured), HasSubstr(line));
  EXPECT_THAT(to_text(tabulate(&example.plan, example.predicted, files)), HasSubstr(line));
  files.plan_digest = "other";
  EXPECT_THAT(compare(&example.plan, example.predicted, example.measured, files).warnings,
              Contains("not the same plan: plan.json has other; m.json 00112233aabbccdd"));
}

TEST(Comparison, WarnsOfFewStepsAndOfWideSpread) {
  Example example;
  example.measured.step_times = {Seconds(10), Seconds(10), Seconds(20)};
  const auto warnings = compare(nullptr, {}, example.measured).warnings;
  EXPECT_THAT(warnings, Contains("only 3 measured steps: the medians are weak"));
  EXPECT_THAT(warnings, Contains("measured step times spread over 80 % of their median (10th to 90th percentile)"));
}

TEST(Comparison, WarnsWhenTheMeasurementIsASimulationAndPassesOnWarnings) {
  Example example;
  example.predicted[0].warnings = {"links are guessed"};
  example.measured.source = "simgrid";
  EXPECT_THAT(
      compare(nullptr, example.predicted, example.measured).warnings,
      ElementsAre("the trace to compare against is itself a simulation (simgrid)", "timeline: links are guessed"));
}

TEST(Comparison, RefusesTracesWithoutEventsOrSteps) {
  Example example;
  example.measured.step_times.clear();
  EXPECT_THROW(compare(nullptr, {}, example.measured), Error);
  example.measured = example_trace("cpu", 1, 1);
  example.predicted[0].events.clear();
  EXPECT_THROW(compare(nullptr, example.predicted, example.measured), Error);
}

TEST(ComparisonText, IsTheTableThatPeopleRead) {
  Example example;
  example.measured.machine = "Testbox, 2 cores";
  EXPECT_EQ(to_text(compare(&example.plan, example.predicted, example.measured)),
            R"(measured: cpu, 6 steps, Testbox, 2 cores, toy, gpipe

                    closed form     error  timeline    error  measured
step time                16.0 s   -33.3 %    18.0 s  -25.0 %    24.0 s
bubble, idle/total            -         -    41.2 %  +2.0 pp    39.1 %
bubble, zb span               -         -    41.2 %  +2.0 pp    39.1 %
stage 0 F                2.00 s   -50.0 %    2.00 s  -50.0 %    4.00 s
stage 0 B                3.00 s    +0.0 %    3.00 s   +0.0 %    3.00 s
stage 0 SEND_F           1.00 s    +0.0 %    1.00 s   +0.0 %    1.00 s
stage 0 STEP             1.00 s    +0.0 %    1.00 s   +0.0 %    1.00 s
stage 1 F                2.00 s   -50.0 %    2.00 s  -50.0 %    4.00 s
stage 1 B                3.00 s    +0.0 %    3.00 s   +0.0 %    3.00 s
stage 1 SEND_B           1.00 s    +0.0 %    1.00 s   +0.0 %    1.00 s
stage 1 STEP             1.00 s    +0.0 %    1.00 s   +0.0 %    1.00 s
peak mem., rank 0      2.00 KiB    +0.0 %  2.00 KiB   +0.0 %  2.00 KiB
peak mem., rank 1      2.00 KiB  +100.0 %  1.00 KiB   +0.0 %  1.00 KiB

closed form: step time -33.3 %, median error 0.0 %, worst 100.0 % (peak mem., rank 1)
timeline: step time -25.0 %, median error 0.0 %, worst 50.0 % (stage 0 F)
)");
}

TEST(ComparisonText, StaysWithinAHundredColumnsWithManyRungsAndLongWarnings) {
  Example example;
  for (int i = 0; i < 4; ++i) example.predicted.push_back(example_trace("simulator", 2, 3));
  example.measured.warnings = {std::string(250, 'x'), "a warning of many words " + std::string(90, 'y') + " and more"};
  const std::string text = to_text(compare(&example.plan, example.predicted, example.measured));
  EXPECT_LE(longest_line(text), max_columns);
  EXPECT_THAT(text, HasSubstr("simulator #4"));
}

TEST(ComparisonText, FoldsManyStagesIntoOneRowAKind) {
  Example example;
  Trace wide = example.measured;
  wide.stages = wide.ranks = 20;
  for (int stage = 2; stage < 20; ++stage) {
    TraceEvent event = wide.events.front();
    event.action.stage = StageId{stage};
    event.end = event.start + Seconds(8);
    wide.events.push_back(event);
    wide.peak_memory.emplace_back(stage);
  }
  const Comparison all = compare(nullptr, {}, wide);
  const Comparison folded = condensed(all);
  EXPECT_EQ(row(folded, "F, 20 stages").measured, 8);
  EXPECT_EQ(row(folded, "peak mem., 20 ranks").measured, 2048);
  EXPECT_LT(folded.rows.size(), 15U);
  EXPECT_GT(all.rows.size(), 40U);
}

TEST(ComparisonMarkdown, EscapesWhatWouldEndACell) {
  Example example;
  example.measured.network = "a|b<script>";
  const std::string text = to_markdown(compare(&example.plan, example.predicted, example.measured));
  EXPECT_THAT(text, HasSubstr("a\\|b&lt;script&gt;"));
  EXPECT_THAT(text, HasSubstr("| stage 0 F | 2.00 s | -50.0 % | 2.00 s | -50.0 % | 4.00 s |\n"));
}

TEST(ComparisonJson, CarriesUnitsInItsKeys) {
  const Json json = to_json(Example().comparison);
  EXPECT_EQ(json["step_time_s"]["timeline"], 18.0);
  EXPECT_EQ(json["step_time_s"]["measured"], 24.0);
  EXPECT_EQ(json["step_time_error_pct"]["timeline"], -25.0);
  EXPECT_EQ(json["errors"]["timeline"]["worst_error_pct"], 50.0);
  EXPECT_EQ(json["actions"][0]["action"], "F");
  EXPECT_EQ(json["actions"][0]["time_s"]["measured"], 4.0);
  EXPECT_EQ(json["actions"][0]["measured_p90_s"], 4.0);
  EXPECT_EQ(json["peak_memory_bytes"][1]["bytes"]["closed form"], 2048.0);
  EXPECT_TRUE(json["bubble_idle_over_total"]["closed form"].is_null());
}

}  // namespace
}  // namespace stagecraft
