// Schedules written as text, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/schedule/schedule.hpp"

namespace stagecraft::test {

// "0F0 0B0": actions separated by blanks. REQUIRES: all parse.
inline std::vector<Action> actions(std::string_view text) {
  std::vector<Action> result;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    if (end > 0) result.push_back(parse_action(text.substr(0, end)).value());
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

template <class Schedule>
Schedule schedule(int stages, int microbatches, const std::vector<std::string>& ranks) {
  Schedule result{"custom", stages, microbatches, {}};
  for (const std::string& rank : ranks) result.ranks.push_back(actions(rank));
  return result;
}
inline ComputeSchedule computes(int stages, int microbatches, const std::vector<std::string>& ranks) {
  return schedule<ComputeSchedule>(stages, microbatches, ranks);
}
inline LoweredSchedule lowered(int stages, int microbatches, const std::vector<std::string>& ranks) {
  return schedule<LoweredSchedule>(stages, microbatches, ranks);
}

// Calls visit(kind, shape) for every shape up to these counts that a generator takes. REQUIRES: each takes some.
template <class Visit>
void for_each_legal_shape(int max_ranks, int max_stages_per_rank, int max_microbatches, const Visit& visit) {
  for (const ScheduleKind& kind : schedule_kinds()) {
    int legal = 0;
    for (int p = 1; p <= max_ranks; ++p) {
      for (int v = 1; v <= max_stages_per_rank; ++v) {
        for (int m = 1; m <= max_microbatches; ++m) {
          const ScheduleShape shape{p, v, m};
          if (!kind.refuse(shape).empty()) continue;
          ++legal;
          visit(kind, shape);
        }
      }
    }
    EXPECT_GT(legal, 0) << kind.name << " takes no shape";
  }
}

inline std::string text(const std::vector<Action>& actions) {
  std::string result;
  for (const Action& action : actions) result += (result.empty() ? "" : " ") + to_string(action);
  return result;
}

}  // namespace stagecraft::test
