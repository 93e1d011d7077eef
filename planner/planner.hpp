// Finds how to train a network on a cluster: searches layouts, partitions the layers, ranks, and says why.
//
// Three nouns: SearchSpace (what is fixed), CostModel (what layers cost), search() (the rest). Each layout is
// partitioned exactly for its closed form (partition.hpp), the best few are refined and judged by the timeline. Pure
// and deterministic: same inputs, same plan; no clock decides. Candidates that do not fit are values with a reason.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/cost/cost.hpp"
#include "models/plan.hpp"
#include "planner/objective.hpp"

namespace stagecraft {

// What the caller has fixed. Empty options are searched.
struct SearchSpace {
  std::int64_t global_batch = 1;  // samples a step
  std::int64_t sequence = 1;      // tokens a sample
  DataType precision = DataType::bf16;
  Optimizer optimizer = Optimizer::adamw;
  bool fused_attention = false;
  LayoutObjective objective = LayoutObjective::time;

  std::optional<int> stages;  // of one pipeline
  std::optional<int> ranks;   // devices of one pipeline
  std::optional<int> stages_per_rank;
  std::optional<int> replicas;             // data-parallel width
  int zero = 0;                            // 1: only layouts whose replicas share the optimizer's state
  std::optional<std::int64_t> microbatch;  // samples
  std::optional<std::string> schedule;     // a name of schedule_kinds(); empty: those of `schedules`
  std::optional<Recompute> recompute;      // empty: those of `recomputes` that the cost model knows
  // Blocks of each rank that recompute: a number, fewest_layers or listed_layers; empty: all or none. For transformers
  // on schedules with one stage a rank.
  std::optional<std::int32_t> recomputed_layers;
  std::vector<std::int32_t> recomputed_blocks;  // by rank, where they are listed; `ranks` is then as many
  std::optional<int> devices;                   // use at most this many; empty: the whole cluster
  double memory_share = 1;                      // of each device's memory, that a plan may need
  std::vector<std::int64_t> cuts;  // stage boundaries by hand, positions in topological_order(); fixes `stages`

  std::vector<Recompute> recomputes{Recompute::none, Recompute::selective, Recompute::full};  // at least one

  std::vector<std::string> schedules{"gpipe", "1f1b"};  // those whose closed forms bound the search
  // Of groups of devices (device_groups.hpp): one tensor width for all types; whether norms are sharded, as the model
  // prices it.
  bool same_width = false, sequence_parallel = true;
  // Of them, too: besides what is said above, layouts with ZeRO 1, and such that recompute on each rank as few blocks
  // as it needs.
  bool also_sharded = false, also_fewest = false;

  // Layouts that the timeline judges, up to four times as many of short ones, besides the best of each schedule.
  int timelines = 16;
  int keep = 5;          // at most so many ranked plans and so many near misses
  bool contend = false;  // rank more, for confirm_best() to choose from
  bool advise = true;    // where nothing fits, look for what would
};

struct Layout {
  int stages = 1;
  int ranks = 1;     // devices of one pipeline; fewer than stages when ranks hold several
  int replicas = 1;  // pipelines
  std::int64_t microbatch = 1;
  std::int64_t microbatches = 1;  // a replica
  std::string schedule;
  Recompute recompute = Recompute::none;
  int zero = 0;                                        // 1: replicas share the optimizer's state (ZeRO 1)
  std::optional<std::int32_t> recomputed_layers = {};  // as in SearchSpace
  bool operator==(const Layout&) const = default;
};

// Where a step's time goes; the terms add up to the timeline's step.
struct Breakdown {
  Seconds compute;        // forward and backward, mean over the ranks
  Seconds imbalance;      // what the busiest rank computes beyond that mean
  Seconds bubble;         // waiting for the pipeline to fill and drain
  Seconds communication;  // point-to-point time that no computation hides
  Seconds reduction;      // gradient reductions that no computation hides
  Seconds optimizer;
};

struct Shortage {
  StageId stage;
  std::string device;  // type
  Bytes needed, available;
  int devices = 1;  // that these are of: a group's
};

// What one device of a plan needs at its peak, and has.
struct DeviceMemory {
  Bytes needed, available;
  double share() const { return needed / available; }
};

enum class Fate { feasible, out_of_memory };

struct Candidate {
  Layout layout;
  Fate fate = Fate::feasible;
  std::optional<Shortage> shortage;      // out_of_memory: the worst stage of the partition that needs least
  std::optional<Seconds> closed_form;    // of the best partition; out_of_memory: as if memory were unlimited
  std::optional<Seconds> timeline;       // of the refined partition
  std::optional<Seconds> simgrid;        // of the same with contention, where confirm.hpp has asked
  Breakdown breakdown;                   // where `timeline` is known
  double bubble = 0;                     // as in Prediction
  DeviceMemory memory;                   // likewise: of the device that is nearest to its limit
  int devices_used = 0;                  // likewise: of all replicas, those of groups counted
  double price = 0;                      // likewise: US dollars an hour of them all; 0: unknown for some
  std::vector<LayerRange> stages;        // positions in the plan's order
  std::vector<std::int32_t> recomputed;  // blocks by rank, where they are counted
  std::string devices;                   // types along the pipeline: "2x A100, 2x V100"
  // "slower: +12 %, bubble 27 % against 9 %", "out of memory on stage 3: needs X, has Y"; of give_verdicts()
  std::string verdict;
};

// The last word on a candidate's step: SimGrid's, else the timeline's. REQUIRES: the latter.
inline Seconds step_of(const Candidate& candidate) { return candidate.simgrid.value_or(*candidate.timeline); }
// Whether both are one plan, also where types differ in width that neither uses.
inline bool same_plan(const Candidate& a, const Candidate& b) {
  return a.layout == b.layout && a.devices == b.devices && a.stages == b.stages;
}

// Smaller is better; the second number decides ties. Without prices all devices cost the same. REQUIRES: as step_of().
std::pair<double, double> score_of(const Candidate& candidate, LayoutObjective objective);

struct RankedPlan {
  Candidate candidate;
  Plan plan;  // complete but for simgrid_step and profile_digest
};

struct SearchCounts {
  std::int64_t layouts = 0;        // combinations that the options allow
  std::int64_t out_of_memory = 0;  // of those
  std::int64_t outclassed = 0;     // not partitioned: even perfectly balanced slower than the best few
  std::int64_t partitioned = 0;    // exactly, for the closed form
  std::int64_t simulated = 0;      // refined and judged by the timeline
};

struct SearchResult {
  LayoutObjective objective = LayoutObjective::time;
  std::vector<RankedPlan> ranked;      // best first, at least one; for a closer look by SimGrid (confirm.hpp)
  std::vector<Candidate> near_misses;  // what else deserves a word: would have been faster but does not fit, or slower
  SearchCounts counts;
  std::string why;                 // the winner against the runner-up, in a few lines; of give_verdicts()
  std::vector<std::string> notes;  // simplifications made, e.g. too many legal cuts for this graph
  const Plan& best() const { return ranked.front().plan; }
};

// Throws bad_input for options that contradict each other or the inputs (a global batch that does not divide, more
// stages than layers, unknown schedule); infeasible, with what would make it feasible, when no candidate fits. Verdicts
// are left empty: they are on the ranking that is final (give_verdicts() of explain.hpp).
SearchResult search(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space);

// Leaves the first `keep` plans ranked. As many near misses there can be, and where there is room the others become
// such: the best of each other schedule first.
void keep_best(SearchResult& result, int keep);

// "P=8 R=4 b=2 M=16 1f1b recompute=full zero1".
std::string to_string(const Layout& layout);

}  // namespace stagecraft
