// The same job on changed machines: what advice of either engine says, in plain values.
#pragma once

#include <optional>
#include <string>

namespace stagecraft {

// One property of all machines scaled: rates, memory or latencies.
struct WhatIf {
  std::string property;        // "local links"
  double factor = 1;           // 0.5, 0.9, 1.1, 2
  std::optional<double> same;  // seconds a step of the same plan; empty where it does not fit
  std::optional<double> best;  // of the best one there, planned anew for halves and doubles; empty: none fits
  std::string plan;            // the best one's text
  std::string as;              // the same in short: "the same", "p8v1t4c1d16b2"
  bool planned_anew() const { return factor == 0.5 || factor == 2; }
};

}  // namespace stagecraft
