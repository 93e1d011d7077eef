#include "reports/svg.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/error.hpp"
#include "reports/escape.hpp"
#include "tests/reports/example.hpp"
#include "tests/reports/markup.hpp"

namespace stagecraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Escape, MakesTextSafeInMarkup) {
  EXPECT_EQ(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
  EXPECT_EQ(escape("Müller \xF0\x9F\x9A\x80"), "Müller \xF0\x9F\x9A\x80");
  EXPECT_EQ(escape(std::string("a\0b\x1b\x7f", 5)), "a?b??");
  EXPECT_EQ(escape("\xff\xc3x\xed\xa0\x80"), std::string("?"
                                                         "?x?"
                                                         "?"
                                                         "?"));
  EXPECT_EQ(escape("abcdef", 3), "abc...");
}

TEST(ClockTrace, HoldsTheClocksSpans) {
  // GPipe on 2 ranks, 2 micro-batches: rank 1 finishes at 1 + 2 + 4 = 7, rank 0 two units later.
  const ComputeSchedule schedule = make_schedule("gpipe", {2, 1, 2});
  const Trace trace = clock_trace(schedule, clock_schedule(schedule));
  EXPECT_EQ(trace.step_times, std::vector<Seconds>{Seconds(9)});
  ASSERT_EQ(trace.events.size(), 8U);
  const TraceEvent& last = trace.events[3];
  EXPECT_EQ(to_string(last.action), "0B1");
  EXPECT_EQ(last.start, Seconds(7));
  EXPECT_EQ(last.end, Seconds(9));
}

TEST(Svg, DrawsABoxForEveryEventOfOneStep) {
  const Trace trace = example_trace("cpu", 2, 3, 3);
  const std::string svg = to_svg(trace);
  EXPECT_EQ(fault_of_markup(svg), "");
  EXPECT_EQ(count(svg, "</title></rect>"), trace.events.size() / 3);
  EXPECT_THAT(svg, HasSubstr("<title>1B0: backward, starts "));
  EXPECT_THAT(svg, HasSubstr(">rank 1</text>"));
}

TEST(Svg, DrawsASchedule) {
  const std::string svg = to_svg(make_schedule("1f1b", {4, 1, 8}));
  EXPECT_EQ(fault_of_markup(svg), "");
  EXPECT_EQ(count(svg, "</title></rect>"), 64U);
  EXPECT_THAT(svg, HasSubstr("1f1b: 4 stages, 8 micro-batches"));
}

TEST(Svg, SaysWhatItLeftOut) {
  const Trace trace = example_trace("cpu", 2, 3);
  SvgOptions options;
  options.max_boxes = trace.events.size() / 2;
  EXPECT_THAT(to_svg(trace, options), HasSubstr("shows 1 of 2 ranks"));
  options.max_boxes = 3;
  const std::string svg = to_svg(trace, options);
  EXPECT_THAT(svg, HasSubstr("shows the first 3 of 8 actions"));
  EXPECT_EQ(count(svg, "</title></rect>"), 3U);
}

TEST(Svg, KeepsWholeReplicasWhereTheyFit) {
  Trace trace = example_trace("cpu", 2, 3);
  trace.replicas = 3;
  const std::vector<TraceEvent> first = trace.events;
  for (int replica = 1; replica < 3; ++replica) {
    for (TraceEvent event : first) {
      event.replica = replica;
      trace.events.push_back(event);
    }
  }
  SvgOptions options;
  options.max_boxes = trace.events.size() - 1;
  const std::string svg = to_svg(trace, options);
  EXPECT_THAT(svg, HasSubstr("1 / rank 1"));
  EXPECT_THAT(svg, Not(HasSubstr("2 / rank 0")));
  EXPECT_THAT(svg, HasSubstr("shows 4 of 6 ranks"));
}

TEST(Svg, LeavesOutReplicasThatTheTraceDoesNotHold) {
  Trace trace = example_trace("simgrid", 2, 3);
  trace.replicas = 8;
  const std::string svg = to_svg(trace);
  EXPECT_THAT(svg, HasSubstr("0 / rank 1"));
  EXPECT_THAT(svg, Not(HasSubstr("1 / rank 0")));
}

TEST(Svg, RefusesAStepThatWasNotTraced) {
  SvgOptions options;
  options.step = 7;
  EXPECT_THROW(to_svg(example_trace("cpu", 2, 3), options), Error);
}

TEST(Svg, EscapesNamesAndLoadsNothing) {
  Trace trace = example_trace("cpu", 2, 3);
  trace.network = "<script>alert(1)</script>";
  const std::string svg = to_svg(trace);
  EXPECT_EQ(fault_of_markup(svg), "");
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_EQ(external_reference(svg), "");
}

}  // namespace
}  // namespace stagecraft
