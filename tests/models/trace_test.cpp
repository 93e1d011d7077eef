#include "models/trace.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/error.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

// Two ranks, one micro-batch, F 1 s and B 2 s: 0F0 0..1, 1F0 1..2, 1B0 2..4, 0B0 4..6.
Trace two_stages() {
  Trace trace;
  trace.source = "timeline";
  trace.network = "n";
  trace.schedule = "gpipe";
  trace.stages = trace.ranks = 2;
  trace.microbatches = trace.replicas = 1;
  trace.tokens_per_step = 10;
  trace.stage_ranks = {RankId{0}, RankId{1}};
  trace.step_times = {Seconds(6)};
  trace.peak_memory = {Bytes(1), Bytes(2)};
  const auto add = [&](int rank, const char* action, double start, double end) {
    trace.events.push_back({0, 0, RankId{rank}, *parse_action(action), Seconds(start), Seconds(end), Bytes(0)});
  };
  add(0, "0F0", 0, 1);
  add(0, "0B0", 4, 6);
  add(1, "1F0", 1, 2);
  add(1, "1B0", 2, 4);
  return trace;
}

TEST(Trace, NamesBothBubbles) {
  const TraceSummary summary = summarize(two_stages());
  EXPECT_EQ(summary.step, Seconds(6));
  EXPECT_DOUBLE_EQ(summary.bubble, 0.5);       // 6 of 12 rank-seconds idle
  EXPECT_DOUBLE_EQ(summary.span_bubble, 0.5);  // rank 0: span 6, busy 3
}

TEST(Trace, TakesMediansAndPercentilesByStageAndKind) {
  Trace trace = two_stages();
  for (int i = 0; i < 9; ++i) {
    trace.events.push_back({i + 1, 0, RankId{0}, *parse_action("0F0"), Seconds(0), Seconds(i + 2), Bytes(0)});
  }
  const auto kinds = summarize(trace).kinds;  // stage 0: F lasted 1, 2, ..., 10
  ASSERT_EQ(kinds.size(), 4U);
  EXPECT_EQ(kinds[0].kind, ActionKind::forward);
  EXPECT_EQ(kinds[0].count, 10);
  EXPECT_EQ(kinds[0].median, Seconds(5.5));
  EXPECT_DOUBLE_EQ(kinds[0].low.value(), 1.9);
  EXPECT_DOUBLE_EQ(kinds[0].high.value(), 9.1);
}

TEST(Trace, ReadsBackWhatItWrote) {
  Trace trace = two_stages();
  trace.losses = {1.5, std::nan("")};
  trace.warnings = {"noisy"};
  const Json json = to_json(trace);
  const Trace back = trace_from_json(JsonValue(json, "t.json"));
  EXPECT_EQ(to_json(back), json);
  EXPECT_EQ(back.events, trace.events);
  EXPECT_TRUE(std::isnan(back.losses[1]));
}

std::string trace_complaint(const Json& json) {
  try {
    trace_from_json(JsonValue(json, "t.json"));
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(Trace, HasAClockOfEachDeviceOrNone) {
  Trace trace = two_stages();
  EXPECT_FALSE(to_json(trace).contains("clock_hz"));
  trace.clocks = {1.5e9, 1.75e9};
  EXPECT_EQ(trace_from_json(JsonValue(to_json(trace), "t.json")).clocks, trace.clocks);
  trace.clocks.pop_back();
  EXPECT_NE(trace_complaint(to_json(trace)).find("clock_hz: expected 2 clocks, one a device"), std::string::npos);
}

TEST(Trace, HasARowForEveryShardOfARank) {
  Trace trace = two_stages();
  trace.shards = 2;
  trace.replicas = 2;
  trace.events.push_back({0, 1, RankId{1}, *parse_action("1F0"), Seconds(1), Seconds(2), Bytes(3), 1});
  EXPECT_EQ(trace.rows(), 8);
  EXPECT_EQ(trace.row_of(trace.events.back()), 7);
  EXPECT_EQ(trace.row_name(7), "1 / rank 1.1");
  const Json json = to_json(trace);
  const Trace read = trace_from_json(JsonValue(json, "t.json"));
  EXPECT_EQ(read.shards, 2);
  EXPECT_EQ(read.events, trace.events);
  Json wrong = json;
  wrong["events"][0][7] = 2;
  EXPECT_THROW(trace_from_json(JsonValue(wrong, "t.json")), Error);
}

TEST(Trace, RefusesEventsThatTheHeaderDoesNotAnnounce) {
  const Json good = to_json(two_stages());
  Json bad = good;
  bad["events"][1][2] = 2;
  EXPECT_EQ(trace_complaint(bad), "t.json: events[1][2]: expected a whole number from 0 to 1, got 2");
  bad = good;
  bad["events"][0][3] = "2F0";
  EXPECT_THAT(trace_complaint(bad), HasSubstr("events[0][3]: expected a stage below 2"));
  bad = good;
  bad["events"][0][3] = "0F1";
  EXPECT_THAT(trace_complaint(bad), HasSubstr("expected a micro-batch below 1"));
  bad = good;
  bad["events"][0][5] = -1;
  EXPECT_THAT(trace_complaint(bad), HasSubstr("events[0][5]: expected a number from 0"));
  bad = good;
  bad["sources"] = 1;
  EXPECT_EQ(trace_complaint(bad), "t.json: unknown field 'sources' (did you mean 'source'?)");
}

}  // namespace
}  // namespace stagecraft
