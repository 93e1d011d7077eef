// Improves a partition under the timeline, which sees what closed forms do not: the order of actions, waits in the
// middle of the pipeline, messages that hide behind computation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planner/partition.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {

// The timeline of one lowered schedule on partitions of one problem.
class PartitionTimeline {
 public:
  // Both are used, not owned. REQUIRES: as many slots as the schedule has stages.
  PartitionTimeline(const PartitionProblem& problem, Timeline& timeline);

  // Step time in seconds. REQUIRES: a path of cuts of the problem.
  double step(std::span<const int> cuts);
  std::size_t actions() const { return timeline_.actions(); }
  const PartitionProblem& problem() const { return problem_; }

 private:
  const PartitionProblem& problem_;
  Timeline& timeline_;
  StepCosts costs_;
};

// What a refinement found, and how hard it tried.
struct Refined {
  std::vector<int> cuts;
  double step = 0;  // seconds
  std::int64_t evaluations = 0;
};

// The best of `starts`, of all partitions where these are few, and of those that local moves reach: an end of a stage
// goes one group of layers up or down, or two ends do; from the best start until nothing helps, then from the next best
// partitions, until `actions` actions have been evaluated. Only partitions that fit into memory.
// REQUIRES: at least one start; the starts fit.
Refined refine(PartitionTimeline& timeline, std::span<const std::vector<int>> starts, std::int64_t actions);

}  // namespace stagecraft
