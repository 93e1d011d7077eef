#include "reports/perfetto.hpp"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/reports/example.hpp"

namespace stagecraft {
namespace {

std::vector<Json> events_with(const Json& document, const std::string& phase) {
  std::vector<Json> found;
  for (const Json& event : document.at("traceEvents")) {
    if (event.at("ph") == phase) found.push_back(event);
  }
  return found;
}

TEST(Perfetto, HoldsEveryEventOfEveryTraceInItsOwnProcess) {
  const std::vector<Trace> traces{example_trace("timeline", 2, 3), example_trace("cpu", 4, 3, 2)};
  const Json document = Json::parse(to_perfetto(traces));
  std::map<int, std::size_t> count;
  for (const Json& event : events_with(document, "X")) ++count[event["pid"].get<int>()];
  EXPECT_EQ(count[1], traces[0].events.size());
  EXPECT_EQ(count[2], traces[1].events.size());
  std::set<std::string> names;
  for (const Json& event : events_with(document, "M")) {
    if (event["name"] == "process_name") names.insert(event["args"]["name"].get<std::string>());
  }
  EXPECT_EQ(names, (std::set<std::string>{"predicted: timeline", "measured: cpu"}));
}

TEST(Perfetto, WritesMicrosecondsToTheNanosecondAndLinesUpTheSteps) {
  Trace trace = example_trace("cpu", 2, 3, 2);
  trace.events[0].start = Seconds(1.5e-9);
  trace.events[0].end = Seconds(1.2345678);
  const Json document = Json::parse(to_perfetto({&trace, 1}));
  const Json first = events_with(document, "X").front();
  EXPECT_EQ(first["name"], "0F0");
  EXPECT_EQ(first["ts"], 0.002);
  EXPECT_EQ(first["dur"], 1234567.798);
  double second_step = 1e18;
  for (const Json& event : events_with(document, "X")) {
    if (event["args"]["step"] == 1) second_step = std::min(second_step, event["ts"].get<double>());
  }
  EXPECT_EQ(second_step, 18e6);  // a step takes 18 s
}

TEST(Perfetto, LeadsAnArrowFromEachSendToItsReceive) {
  const Trace trace = example_trace("cpu", 2, 3, 2);
  const Json document = Json::parse(to_perfetto({&trace, 1}));
  std::map<std::int64_t, double> starts;
  for (const Json& event : events_with(document, "s")) {
    EXPECT_TRUE(starts.emplace(event["id"].get<std::int64_t>(), event["ts"].get<double>()).second);
  }
  EXPECT_EQ(starts.size(), 8U);  // 2 steps, 2 micro-batches, there and back
  const auto ends = events_with(document, "f");
  EXPECT_FALSE(ends.empty());
  for (const Json& event : ends) {
    ASSERT_TRUE(starts.count(event["id"].get<std::int64_t>()));
    EXPECT_GE(event["ts"].get<double>(), starts[event["id"].get<std::int64_t>()]);
    EXPECT_EQ(event["bp"], "e");
  }
}

TEST(Perfetto, NeverLetsSlicesOfOneThreadOverlap) {
  Trace trace = example_trace("cpu", 2, 3);
  for (TraceEvent& event : trace.events) {
    if (event.action.kind == ActionKind::send_forward) event.end += Seconds(10);  // both in flight at once
  }
  std::map<int, std::vector<std::pair<double, double>>> threads;
  for (const Json& event : events_with(Json::parse(to_perfetto({&trace, 1})), "X")) {
    const double start = event["ts"].get<double>();
    threads[event["tid"].get<int>()].emplace_back(start, start + event["dur"].get<double>());
  }
  for (auto& [thread, slices] : threads) {
    std::sort(slices.begin(), slices.end());
    for (std::size_t i = 1; i < slices.size(); ++i) EXPECT_GE(slices[i].first, slices[i - 1].second) << thread;
  }
  EXPECT_EQ(threads.count(2), 1U);  // rank 0's second lane
}

TEST(Perfetto, CountsMicrobatchesInFlightOrBytesWithAPlan) {
  const Trace trace = example_trace("cpu", 2, 3);
  std::vector<std::int64_t> in_flight, bytes;
  for (const Json& event : events_with(Json::parse(to_perfetto({&trace, 1})), "C")) {
    if (event["name"] == "rank 0 in flight") in_flight.push_back(event["args"]["micro-batches"].get<std::int64_t>());
  }
  const Plan plan = example_plan();
  for (const Json& event : events_with(Json::parse(to_perfetto({&trace, 1}, &plan)), "C")) {
    if (event["name"] == "rank 0 memory") bytes.push_back(event["args"]["bytes"].get<std::int64_t>());
  }
  EXPECT_EQ(in_flight, (std::vector<std::int64_t>{1, 2, 1, 0}));
  EXPECT_EQ(bytes, (std::vector<std::int64_t>{1792, 2048, 1792, 1536}));
}

TEST(Perfetto, EscapesTextFromFiles) {
  Trace trace = example_trace("a\"b\\\n\xff", 2, 3);
  trace.machine = "</script>\x01";
  EXPECT_TRUE(Json::accept(to_perfetto({&trace, 1})));
}

}  // namespace
}  // namespace stagecraft
