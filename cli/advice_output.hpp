// What both engines of `plan` print of their advice, in the same tables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/json_reader.hpp"
#include "models/units.hpp"
#include "planner/what_if.hpp"

namespace stagecraft {

std::string percent(double share);
// "+4.1 %" of a step in seconds against another; "no fit" where there is none.
std::string change(std::optional<double> step, double from);
// US dollars; "-" for none.
std::string cost_text(double dollars);
// US dollars of a step; `price`: of all devices in use, USD an hour.
double step_cost(double price, Seconds step);

// "8", or "6 of 8": devices in use of those that could be.
std::string devices_text(std::int64_t used, std::int64_t devices);

// How the step changes with properties of the machine. `same` and `best`: seconds a step as things are, of the plan and
// of the best one by what plans anew.
std::string what_if_table(const std::vector<WhatIf>& all, double same, double best);
Json what_if_json(const std::vector<WhatIf>& all);

// The table with a line below each row but the heading, where that is not empty. REQUIRES: a line a row.
std::string with_lines_below(std::string_view table, const std::vector<std::string>& lines);

// The best plan on so many devices.
struct ScalingRow {
  std::int64_t devices = 0, used = 0;  // by cost or memory fewer may be the best
  std::int64_t batch = 0;              // samples a step
  std::optional<Seconds> step;         // empty: none fits, and nothing below counts
  double tokens_per_second = 0;
  std::optional<double> mfu;
  Bytes memory;
  double dollars = 0;  // a step
  std::string plan;
  std::string below;  // a line of its own instead, which may be long
};
// `by`: what says the step, "closed form".
std::string scaling_table(const std::vector<ScalingRow>& rows, const std::string& by, bool weak);

}  // namespace stagecraft
