#include "reports/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/error.hpp"
#include "reports/chart.hpp"
#include "reports/report_facts.hpp"
#include "tests/reports/example.hpp"
#include "tests/reports/markup.hpp"

namespace stagecraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct ReportExample {
  Plan plan = example_plan();
  std::vector<Trace> predicted{example_trace("timeline", 2, 3), example_trace("simgrid", 2, 3)};
  Trace measured = example_trace("cpu", 4, 3, 6);
  ReportExample() { measured.losses = {3, 2.5, 2}; }
  ReportInput input() const { return {"", &plan, predicted, &measured}; }
};

TEST(HtmlReport, IsWellFormedAndLoadsNothing) {
  const std::string page = html_report(ReportExample().input());
  EXPECT_EQ(fault_of_markup(page), "");
  EXPECT_EQ(external_reference(page), "");
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(HtmlReport, ShowsEveryPartWithoutItsScript) {
  std::string page = html_report(ReportExample().input());
  page.erase(page.rfind("<script>"));
  for (const char* part : {"How far each prediction is off", "One step, rank by rank", "Where the time goes", "Loss",
                           "Peak memory", "Stages of the plan", "What ran"}) {
    EXPECT_THAT(page, HasSubstr(std::string(">") + part + "</h2>"));
  }
  EXPECT_THAT(page, HasSubstr("<td>18.0 s</td><td class=\"err poor\">-25.0 %</td>"));
  EXPECT_THAT(page, HasSubstr("<td class=\"truth\">24.0 s</td>"));
}

TEST(HtmlReport, DrawsAllTracesOnTheSameTimeAxis) {
  const ReportExample example;
  const std::string page = html_report(example.input());
  EXPECT_EQ(count(page, "data-end=\"24\""), 3U);
  const std::size_t boxes =
      example.predicted[0].events.size() + example.predicted[1].events.size() + example.measured.events.size() / 6;
  EXPECT_EQ(count(page, "</title></rect>"), boxes);
}

TEST(HtmlReport, EscapesEveryTextFromAFile) {
  ReportExample example;
  const std::string evil = "<script>alert(\"1\")</script>&'";
  for (Trace* trace : {&example.measured, &example.predicted[0]}) {
    trace->source = trace->machine = trace->date = trace->network = trace->schedule = trace->plan_digest = evil;
    trace->tool_version = evil;
    trace->warnings = {evil};
  }
  example.plan.network.name = example.plan.cluster.name = example.plan.schedule.name = evil;
  example.plan.cluster.device_types[0].name = example.plan.profile_digest = evil;
  for (const LayerId id : example.plan.order) example.plan.network.graph[id].name = evil;
  ReportInput input = example.input();
  const std::string page = html_report(input);
  EXPECT_EQ(fault_of_markup(page), "");
  EXPECT_EQ(count(page, "<script"), 1U);
  EXPECT_THAT(page, Not(HasSubstr("alert(\"1\")")));
  EXPECT_THAT(markdown_report(input), Not(HasSubstr("<script")));
  input.title = evil;
  EXPECT_EQ(count(html_report(input), "<script"), 1U);
}

TEST(HtmlReport, CutsLargeTracesAndSaysSo) {
  const ReportExample example;
  ReportInput input = example.input();
  input.max_boxes = 5;
  const std::string page = html_report(input);
  EXPECT_EQ(fault_of_markup(page), "");
  EXPECT_EQ(count(page, "</title></rect>"), 15U);
  EXPECT_THAT(page, HasSubstr("shows the first 5 of"));
}

TEST(HtmlReport, WorksWithOneTraceAndNothingElse) {
  const std::vector<Trace> predicted{example_trace("timeline", 2, 3)};
  const std::string simulated = html_report({"", nullptr, predicted, nullptr});
  EXPECT_EQ(fault_of_markup(simulated), "");
  EXPECT_THAT(simulated, HasSubstr("What each prediction says"));
  EXPECT_THAT(simulated, Not(HasSubstr("measured</th>")));
  Trace measured = example_trace("cpu", 2, 3);
  measured.peak_memory.clear();
  const std::string run = html_report({"", nullptr, {}, &measured});
  EXPECT_EQ(fault_of_markup(run), "");
  EXPECT_THAT(run, HasSubstr("only 1 measured step"));
}

TEST(HtmlReport, RefusesAnEmptyTrace) {
  Trace measured = example_trace("cpu", 2, 3);
  measured.events.clear();
  EXPECT_THROW(html_report({"", nullptr, {}, &measured}), Error);
}

TEST(ReportFacts, SumEachKindOverTheRanksOfOneStep) {
  const ReportExample example;
  const ReportFacts facts = report_facts(example.input());
  ASSERT_EQ(facts.totals.front().name, "forward");
  EXPECT_EQ(facts.totals.front().by_trace, (std::vector<std::optional<double>>{8, 8, 16}));
  for (const KindTotal& total : facts.totals) {
    if (total.name == "send in flight") {
      EXPECT_TRUE(total.overlaps);
      EXPECT_EQ(total.by_trace[2], 4);
    }
  }
  // Without what overlaps, the kinds add up to the ranks' time: 2 ranks for 18 s.
  double sum = 0;
  for (const KindTotal& total : facts.totals) sum += total.overlaps ? 0 : total.by_trace[0].value_or(0);
  EXPECT_EQ(sum, 36);
}

TEST(ReportFacts, FillTheHeadlines) {
  const ReportFacts facts = report_facts(ReportExample().input());
  EXPECT_EQ(facts.title, "toy, gpipe");
  ASSERT_EQ(facts.headlines.size(), 5U);
  EXPECT_EQ(facts.headlines[0].value, "24.0 s");
  EXPECT_EQ(facts.headlines[0].note, "simgrid 18.0 s, -25.0 %");
  EXPECT_EQ(facts.headlines[3].note, "rank 0 of 4.00 KiB");
  EXPECT_EQ(facts.headlines[4].value, "2");
}

TEST(LossChart, LeavesGapsForLossesThatAreNotNumbers) {
  const std::vector<double> losses{3, 2, std::nan(""), 2, 1};
  const std::string chart = loss_svg(losses);
  EXPECT_EQ(fault_of_markup(chart), "");
  EXPECT_THAT(chart, Not(HasSubstr("nan")));
  const std::string path = chart.substr(chart.find("class=\"mean\""));
  EXPECT_EQ(count(path, "M"), 2U);
  EXPECT_EQ(count(path, "L"), 2U);
}

TEST(LossChart, IsBoundedForLongRunsAndEmptyForShortOnes) {
  EXPECT_LT(loss_svg(std::vector<double>(1'000'000, 1.5)).size(), 50'000U);
  EXPECT_EQ(loss_svg(std::vector<double>{1.0}), "");
  EXPECT_EQ(loss_svg({}), "");
}

TEST(MarkdownReport, HasTheSameContent) {
  const std::string text = markdown_report(ReportExample().input());
  EXPECT_THAT(text, HasSubstr("# toy, gpipe\n"));
  EXPECT_THAT(text, HasSubstr("| step time | 16.0 s | -33.3 % | 18.0 s | -25.0 % | 18.0 s | -25.0 % | 24.0 s |\n"));
  EXPECT_THAT(text, HasSubstr("| forward | 8.00 s | 8.00 s | 16.0 s | +8.00 s (+100.0 %) |\n"));
  EXPECT_THAT(text, HasSubstr("| 3 | 2.0000 |\n"));
  EXPECT_THAT(text, HasSubstr("| 1 | 1.00 KiB | 1.00 KiB | 4.00 KiB |\n"));
  EXPECT_THAT(text, HasSubstr("| 1 | block.2..block.3 | 1 | core |"));
}

}  // namespace
}  // namespace stagecraft
