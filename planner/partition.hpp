// Cuts a network into the stages of one pipeline, exactly: the least step time under a closed form, among all
// partitions whose stages fit into the memory of their devices.
//
// Stages differ in everything: layers, device, link to the next stage, micro-batches in flight. With f, b the forward
// and backward of a stage, c the message to its successor (the last has none), r what follows its last backward
// (gradient reduction, optimizer step), M micro-batches, the objectives are
//
//   gpipe        sum f + sum c + (M-1) max f + max_s [ sum_{k>=s} (b_k + c_k) + (M-1) max_{k>=s} b_k + r_s ]
//                exact: forwards, then backwards, are a flow shop with equal jobs, and stage s is done with its
//                backwards when the bracket without r_s is over
//   one_f_one_b  sum (f + b + 2c) + (M-1) max (f + b) + max_s [ r_s - sum_{k<s} (b_k + c_k) ]
//                exact for equal stages and free messages; otherwise an estimate, which the timeline corrects
//                (refine.hpp)
//
// In both, the sum is the way of one micro-batch down and up the pipeline, and the maxima are the steady state. The sum
// of the bracket and the maxima pull apart (a slower worst stage may buy cheaper messages), so a partial solution is a
// label of four numbers and the dynamic program keeps the Pareto front of labels; bounds on what the rest must cost
// prune it. With `chunks` > 1 (interleaved schedules: several stages a rank) sums are divided and maxima multiplied by
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "planner/cut_costs.hpp"
#include "planner/cut_graph.hpp"
#include "sim/sharing.hpp"

namespace stagecraft {

enum class Objective { gpipe, one_f_one_b };

// What runs a stage.
struct StageSlot {
  int type = 0;       // into CutCosts
  double memory = 0;  // bytes for this stage
  int in_flight = 1;  // micro-batches stashed at the peak
  int split = 0;      // micro-batches between input and weight gradient at the peak
  Link hop{};         // to the next stage's device; the last's is unused
  // Time to sum `g` bytes of gradients over the replicas: reduce_latency + g * reduce_per_byte (seconds).
  double reduce_latency = 0;
  double reduce_per_byte = 0;
  double reserved = 0;  // bytes of `memory` that are not the stage's
  int recomputed = 0;   // blocks, or fewest_layers; where the problem has `blocks`
};

struct PartitionProblem {
  const CutGraph& cuts;
  const CutCosts& costs;
  std::vector<StageSlot> slots;  // by stage
  std::int64_t microbatches = 1;
  Objective objective = Objective::gpipe;
  int chunks = 1;
  double reduce_tied = 0;  // seconds; added to r of both ends
  Neighbours neighbours;   // ranks on slices of one GPU; for the timeline alone
  // Where slots say how many blocks recompute; `costs` is then of blocks that keep everything.
  const BlockCosts* blocks = nullptr;
};

// What a stage costs between two cuts, the first of its blocks recomputing: as many as its slot says, or all that it
// has; or as few as let it fit, or all where none do.
struct StageNeeds {
  CutCosts::Sums sums;
  double workspace = 0;  // bytes
  int recomputed = 0;    // blocks
};
// REQUIRES: an arc between the cuts.
StageNeeds stage_needs(const PartitionProblem& problem, const StageSlot& slot, int from, int to, std::size_t arc);
CutCosts::Sums stage_sums(const PartitionProblem& problem, const StageSlot& slot, int from, int to);

inline double bytes_of(const StageSlot& slot, const CutCosts::Sums& sums, double workspace) {
  return slot.reserved + sums.resident + slot.in_flight * sums.stash + slot.split * sums.split + workspace;
}
// REQUIRES: an arc between the cuts. Most of what a search does.
inline double stage_bytes(const PartitionProblem& problem, const StageSlot& slot, int from, int to, std::size_t arc) {
  if (problem.blocks == nullptr) {
    return bytes_of(slot, sums_between(problem.cuts, problem.costs, slot.type, from, to),
                    problem.costs.workspace[static_cast<std::size_t>(slot.type)][arc]);
  }
  const StageNeeds needs = stage_needs(problem, slot, from, to, arc);
  return bytes_of(slot, needs.sums, needs.workspace);
}
// By stage; empty where the problem has no `blocks`. REQUIRES: the path follows arcs.
std::vector<std::int32_t> recomputed_blocks(const PartitionProblem& problem, std::span<const int> cuts);

struct Partition {
  std::vector<int> cuts;   // nodes: the empty cut, the ends of the stages; one more than stages
  double closed_form = 0;  // seconds
  bool optimal = true;     // false: the front of labels was cut off at its limit (no case known with real networks)
};

// Empty when no partition fits. REQUIRES: at least one slot and one micro-batch.
std::optional<Partition> best_partition(const PartitionProblem& problem);

// The objective of any path of cuts, memory not considered. REQUIRES: as many stages as slots.
double closed_form(const PartitionProblem& problem, std::span<const int> cuts);

// A stage of a path and the bytes it needs.
struct MemoryNeed {
  int stage = 0;
  double needed = 0, available = 0;
  double excess() const { return needed - available; }
  double share() const { return needed / available; }
};
// The stage that needs the largest share of its memory. REQUIRES: the path follows arcs.
MemoryNeed worst_memory(const PartitionProblem& problem, std::span<const int> cuts);

// The partition whose worst stage needs the least share of its memory, fitting or not. Empty only when the network
// has fewer groups of layers than slots or shared tables forbid every partition.
std::optional<Partition> least_memory_partition(const PartitionProblem& problem);

// As many layers a stage as possible alike: the split without any planning. REQUIRES: stages <= groups.
std::vector<int> uniform_cuts(const CutGraph& cuts, int stages);

}  // namespace stagecraft
