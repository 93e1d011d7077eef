// Which layouts are better, and the best few of those seen: what the search and its exhaustive twin must agree on.
#pragma once

#include <limits>
#include <vector>

#include "planner/layout_search.hpp"

namespace stagecraft {

// Smaller is better; each number decides ties of those before. What is offloaded comes before the second: moving that
// hides behind the computation is free in the estimate, and yet nothing to do without need.
struct LayoutScore {
  double first = std::numeric_limits<double>::infinity();
  int offloads = 0;
  double second = std::numeric_limits<double>::infinity();
  auto operator<=>(const LayoutScore&) const = default;
};
// With nothing offloaded: a bound for all that have these devices and take so much or more.
LayoutScore score_of(LayoutObjective objective, const ParallelLayout& layout, double time, double memory);
LayoutScore score_of(LayoutObjective objective, const JudgedLayout& judged);

// A total order: by score, then by the layout itself, such that of equals the one that overlaps more and recomputes
// less comes first.
bool is_before(LayoutObjective objective, const JudgedLayout& a, const JudgedLayout& b);
// Whether two layouts differ only in what a ranking shows the best of.
bool same_candidate(const ParallelLayout& a, const ParallelLayout& b);

// The best `keep` candidates seen.
class LayoutRanking {
 public:
  LayoutRanking(LayoutObjective objective, std::size_t keep) : objective_(objective), keep_(keep) {}
  void add(const JudgedLayout& judged);
  // What a candidate must be better than to get in; infinite while there is room.
  LayoutScore threshold() const;
  // The best so far that differs only in what a ranking shows the best of; null: none got in.
  const JudgedLayout* same_as(const ParallelLayout& layout) const;
  const std::vector<JudgedLayout>& best() const { return best_; }

 private:
  LayoutObjective objective_;
  std::size_t keep_;
  std::vector<JudgedLayout> best_;  // in the order of is_before
};

// Layouts of which none is as fast and as small as another, but for a share `tolerance` of either.
class LayoutFront {
 public:
  explicit LayoutFront(double tolerance = 0) : tolerance_(tolerance) {}
  void add(const JudgedLayout& judged);
  // All points of another front that none here beats, tolerance or not: what that one left out is near its points only.
  void merge(const LayoutFront& other);
  // Whether one is as fast and as small as the bounds and better in one of them: nothing within them can get in.
  bool covers(double time, double memory) const;
  const std::vector<JudgedLayout>& points() const { return points_; }

 private:
  bool covers(double time, double memory, double tolerance) const;
  void insert(const JudgedLayout& judged);

  double tolerance_;
  std::vector<JudgedLayout> points_;  // by rising time, falling memory
};

}  // namespace stagecraft
