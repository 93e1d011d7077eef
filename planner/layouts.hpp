// The layouts that a search space allows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "planner/planner.hpp"

namespace stagecraft {

// A layout and the index of its schedule in schedule_kinds().
struct LayoutOption {
  Layout layout;
  std::size_t schedule = 0;
  int chunks() const { return layout.stages / layout.ranks; }
};

struct LayoutList {
  std::vector<LayoutOption> options;
  std::int64_t too_long = 0;  // left out: more actions than the search will generate
  std::string refusal;        // why a schedule refused to run with one stage a rank, the first time
};

// The modes that the search tries.
std::vector<Recompute> searched_recomputes(const SearchSpace& space);

// Devices that the space lets the search use.
int usable_devices(const Cluster& cluster, const SearchSpace& space);

// Whether the schedule that is asked for changes weights while micro-batches are in flight: it trains one replica,
// whose shared tables are each in one stage.
bool is_asynchronous(const SearchSpace& space);

// Throws bad_input for options that contradict each other or the inputs, infeasible when they need more devices than
// can be used.
void check_space(const SearchSpace& space, const Network& network, const Cluster& cluster);

// Every combination of stages, replicas, micro-batch, schedule and recomputation that multiplies out to the global
// batch; in a fixed order. `cuttable`: pieces that the network can be cut into. REQUIRES: a space that passed
// check_space.
LayoutList list_layouts(const SearchSpace& space, std::int64_t cuttable, int devices);

}  // namespace stagecraft
