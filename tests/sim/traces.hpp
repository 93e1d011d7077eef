// Comparison of traces event by event.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <tuple>

#include "models/trace.hpp"

namespace stagecraft::test {

using EventKey = std::tuple<int, RankId, Action>;  // replica, rank, action

inline std::map<EventKey, TraceEvent> by_action(const Trace& trace) {
  std::map<EventKey, TraceEvent> events;
  for (const TraceEvent& event : trace.events) {
    EXPECT_TRUE(events.emplace(EventKey{event.replica, event.rank, event.action}, event).second)
        << to_string(event.action) << " twice";
  }
  return events;
}

// Every event of one is in the other at the same time, to `relative` of the step time. Waits that short may be absent.
inline void expect_same_events(const Trace& a, const Trace& b, double relative) {
  const double tolerance = relative * a.step_times.at(0).value();
  EXPECT_NEAR(a.step_times.at(0).value(), b.step_times.at(0).value(), tolerance);
  EXPECT_EQ(a.peak_memory, b.peak_memory);
  auto first = by_action(a), second = by_action(b);
  for (const auto& [mine, others] : {std::pair(&first, &second), std::pair(&second, &first)}) {
    for (const auto& [key, event] : *mine) {
      const auto other = others->find(key);
      const std::string name = to_string(event.action) + " of replica " + std::to_string(event.replica);
      if (other == others->end()) {
        EXPECT_LE((event.end - event.start).value(), tolerance) << name << " is in one trace only";
        continue;
      }
      ASSERT_NEAR(event.start.value(), other->second.start.value(), tolerance) << name;
      ASSERT_NEAR(event.end.value(), other->second.end.value(), tolerance) << name;
      ASSERT_EQ(event.bytes, other->second.bytes) << name;
    }
  }
}

inline TraceEvent event(const Trace& trace, int replica, std::string_view action) {
  for (const TraceEvent& candidate : trace.events) {
    if (candidate.replica == replica && to_string(candidate.action) == action) return candidate;
  }
  ADD_FAILURE() << "no event " << action;
  return {};
}

}  // namespace stagecraft::test
