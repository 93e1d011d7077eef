// The search of everything below one setting of the widths: micro-batch, order, shape and tactics.
#pragma once

#include <span>
#include <vector>

#include "planner/layout_ranking.hpp"
#include "planner/width_bounds.hpp"

namespace stagecraft {

// What has been found so far; a copy is what a search below widths begins with.
struct FoundLayouts {
  explicit FoundLayouts(const LayoutSearchOptions& options)
      : ranking(options.objective, options.keep),
        misses(LayoutObjective::memory, options.near_misses),
        front(options.front_tolerance) {}
  LayoutRanking ranking;
  LayoutRanking misses;  // too large, whatever is recomputed
  LayoutFront front;
  LayoutCounts counts;

  void merge(const FoundLayouts& other, bool with_front);
};

class WidthSearch {
 public:
  WidthSearch(const LayoutSpace& space, const LayoutSearchOptions& options, const FoundLayouts& known);

  // What was known and what was found; counts of these widths alone. `bounds`: WidthBounds::residences.
  FoundLayouts run(const Widths& widths, const std::vector<ResidenceBound>& bounds, std::int64_t points);

 private:
  // Recomputation with a number of blocks, in rising order, and with as few as each rank needs.
  struct Choices {
    std::vector<Recomputation> counted, by_rank;
    std::int64_t size() const { return std::ssize(counted) + std::ssize(by_rank); }
  };
  struct Tactics {
    Choices here, offloaded;  // without and with offloaded activations
    std::int64_t points = 0;
  };

  bool only_time() const { return options_.objective != LayoutObjective::memory && !options_.front; }
  bool is_hopeless(const ParallelLayout& layout, double time, double memory) const;
  bool all_hopeless(const ParallelLayout& layout, double time, const std::vector<ResidenceBound>& bounds) const;
  void place(ParallelLayout layout, std::int64_t below);
  double bubble(const ParallelLayout& layout, const LayerShard& block) const;
  Choices choices(std::int32_t layers, bool offload_activations) const;
  const Tactics& tactics(std::int32_t layers);
  void search_shape(ParallelLayout layout, const Shard& shard, const Tactics& tactics,
                    const std::vector<ResidenceBound>& bounds, double time);
  void search_timed(ParallelLayout layout, const Shard& shard, const Tactics& tactics);
  void search_residence(const JudgedLayout& least, const Shard& shard, const Choices& choices, std::int64_t points);
  void search_offloaded(const JudgedLayout& least, const Shard& shard, const Choices& choices, std::int64_t points);
  std::int64_t judge_all(const ParallelLayout& layout, const Shard& shard,
                         std::span<const Recomputation> recomputations);
  std::int64_t judge_fewest(const ParallelLayout& layout, const Shard& shard,
                            std::span<const Recomputation> recomputations);
  JudgedLayout judge(ParallelLayout layout, const Shard& shard, const Recomputation& recomputation) const;
  void add(const JudgedLayout& judged);

  const LayoutSpace& space_;
  const StepModel& model_;
  const LayoutSearchOptions& options_;
  FoundLayouts found_;
  const Widths* widths_ = nullptr;
  std::vector<Residence> residences_;
  std::vector<Tactics> tactics_;  // by blocks of the fullest rank; no points: not listed yet
};

}  // namespace stagecraft
