// Judges one layout at a time: its stages' devices and links, whether it fits, its closed form and its timeline.
//
// Keeps what layouts share: prices, distances between devices, timelines of a schedule.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "planner/assignment.hpp"
#include "planner/layer_prices.hpp"
#include "planner/layouts.hpp"
#include "planner/partition.hpp"
#include "planner/refine.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {

// Ranks and replicas placed on devices, and what lies between them.
struct Geometry {
  Assignment assignment;
  std::vector<int> types;                               // by rank: into LayerPrices::costs
  std::vector<double> reduce_latency, reduce_per_byte;  // by rank: all-reduce over the replicas
  double least_tail = 0;                                // seconds: of an equal share of the gradients, on the best rank
  double price = 0;                                     // of all devices: US dollars an hour, or how many they are
  double memory = 0;                                    // bytes of a replica's devices
};

// What a schedule means for memory and placement, by stage.
struct ScheduleFacts {
  std::vector<int> in_flight;
  std::vector<int> split;     // between input and weight gradient, where these are two actions
  std::vector<RankId> ranks;  // the first of a stage on two
  int stages_on_rank = 1;     // the most
};

// A layout on devices with its best partition so far.
struct Judgement {
  LayoutOption option;
  const Geometry* geometry = nullptr;
  const CutGraph* cuts = nullptr;  // that the partition is of
  Partition partition;
  double closed_form = 0;                // seconds
  double timeline = 0;                   // seconds; zero: not evaluated
  double memory = 0;                     // share of its memory that the stage needs which is nearest to its limit
  double score = 0;                      // what the objective makes least, by the timeline where there is one
  std::vector<std::int32_t> recomputed;  // blocks by stage, set with `timeline`; empty: they are not counted

  // The option's; without recomputation where blocks are counted and none recomputes.
  Layout layout() const;
};

class Judge {
 public:
  // All are used, not owned. Of the space: objective and limit of devices.
  Judge(const Network& network, const Cluster& cluster, const CutGraph& cuts, PriceList& prices,
        const SearchSpace& space);

  // What no partition of this layout on any devices, or on these, can beat by the objective in the closed form.
  double least_score(const LayoutOption& option);
  double least_score(const LayoutOption& option, const Geometry& geometry);
  // What the objective makes of a step in seconds and a share of memory.
  double score(const Geometry& geometry, double step, double memory) const;
  // The arrangements of the layout's devices; kept until the judge is gone.
  const std::vector<Geometry>& geometries(const Layout& layout);
  PartitionProblem problem(const LayoutOption& option, const Geometry& geometry);

  // Bytes that a rank needs on average; workspaces not counted.
  double mean_memory(const LayoutOption& option);
  // False only where no partition can fit; a cheap look before best_partition.
  bool may_fit(const PartitionProblem& problem) const;
  // The best partition by the objective, in the closed form; empty when none fits.
  std::optional<Judgement> partition(const LayoutOption& option, const Geometry& geometry);
  // Sets `timeline`; improves the partition by local moves worth `actions` evaluated actions (zero: as it is), but for
  // the objective of memory.
  void simulate(Judgement& judgement, std::int64_t actions);
  // Of the layout's schedule; kept until the judge is gone.
  Timeline& timeline(const LayoutOption& option, bool tied_ends);

 private:
  const LayerPrices& layer_prices(const Layout& layout, Recompute recompute, int sharers);
  const CutCosts& costs(const Layout& layout);
  const BlockCosts& block_costs_of(const Layout& layout);
  const ScheduleFacts& facts(const LayoutOption& option);
  void improve(Judgement& judgement, const PartitionProblem& to_split, PartitionTimeline& timeline_of,
               std::int64_t actions) const;
  Link hop(const Geometry& geometry, RankId from, RankId to) const;
  double reduce_tied(const Geometry& geometry, double bytes) const;
  std::vector<std::vector<int>> preferences();
  int devices_of(const Assignment& assignment) const;
  double least_closed_form(const LayoutOption& option, const Geometry& geometry);

  using ShapeKey = std::tuple<std::size_t, int, int, std::int64_t>;  // schedule, stages, ranks, micro-batches
  const Network& network_;
  const Cluster& cluster_;
  const CutGraph& cuts_;
  PriceList& prices_;
  const SearchSpace& space_;
  std::map<const LayerPrices*, CutCosts> costs_;
  std::map<const LayerPrices*, BlockCosts> block_costs_;             // by those of blocks that recompute
  std::map<std::pair<int, int>, std::vector<Geometry>> geometries_;  // by ranks and replicas
  std::map<ShapeKey, ScheduleFacts> facts_;
  std::map<std::tuple<ShapeKey, bool, bool>, std::unique_ptr<Timeline>> timelines_;  // data parallel, tied ends
  std::map<std::pair<const LayerPrices*, int>, double> bottlenecks_;                 // by stages
};

// The closed form of a partition: the objective, for 1F1B with the period that messages stretch
// (one_f_one_b_estimate).
double closed_form_step(const PartitionProblem& problem, std::span<const int> cuts);

}  // namespace stagecraft
