#include "planner/refine.hpp"

#include <algorithm>
#include <cassert>
#include <set>

namespace stagecraft {
namespace {

class Refinement {
 public:
  Refinement(PartitionTimeline& timeline, std::int64_t actions)
      : timeline_(timeline),
        problem_(timeline.problem()),
        cuts_(problem_.cuts),
        left_(std::max<std::int64_t>(
            1, actions / static_cast<std::int64_t>(std::max<std::size_t>(1, timeline.actions())))) {}

  Refined run(std::span<const std::vector<int>> starts) {
    for (const auto& start : starts) {
      if (best_.cuts.empty() || left_ > 0) consider(start);
    }
    count_paths();
    if (ways_.front().front() <= left_) {
      std::vector<int> path{0};
      try_all(path);
    } else {
      neighbours_ = cuts_.neighbours();
      climb();
      widen();
    }
    return best_;
  }

 private:
  int stages() const { return static_cast<int>(problem_.slots.size()); }

  bool legal(const std::vector<int>& path) const {
    for (int s = 0; s < stages(); ++s) {
      const auto at = static_cast<std::size_t>(s);
      if (cuts_.find_arc(path[at], path[at + 1]) < 0 || !cuts_.allowed(path[at], path[at + 1], s, stages()))
        return false;
    }
    return worst_memory(problem_, path).excess() <= 0;
  }

  // Whether `path` is the best so far.
  bool consider(const std::vector<int>& path) {
    if (!known_.insert(path).second) return false;
    --left_;
    ++best_.evaluations;
    const double step = timeline_.step(path);
    unexpanded_.emplace(step, path);
    if (!best_.cuts.empty() && step >= best_.step) return false;
    best_.cuts = path;
    best_.step = step;
    return true;
  }

  // ways_[s][cut]: paths from a cut to the full one in the stages from s on, counted up to more than can be tried.
  void count_paths() {
    ways_.assign(static_cast<std::size_t>(stages()) + 1, std::vector<std::int64_t>(cuts_.nodes.size(), 0));
    ways_.back().back() = 1;
    for (std::size_t stage = ways_.size() - 1; stage-- > 0;) {
      for (int from = 0; from < cuts_.full(); ++from) {
        std::int64_t& sum = ways_[stage][static_cast<std::size_t>(from)];
        for (const CutGraph::Arc& arc : cuts_.arcs_from(from)) {
          sum = std::min(left_ + 1, sum + ways_[stage + 1][static_cast<std::size_t>(arc.target)]);
        }
      }
    }
  }

  void try_all(std::vector<int>& path) {
    if (path.size() == ways_.size()) {
      if (legal(path)) consider(path);
      return;
    }
    for (const CutGraph::Arc& arc : cuts_.arcs_from(path.back())) {
      if (ways_[path.size()][static_cast<std::size_t>(arc.target)] == 0) continue;
      path.push_back(arc.target);
      try_all(path);
      path.pop_back();
    }
  }

  // First improvement, from the last moved stage on; the order of moves is fixed, so the result is as well.
  void climb() {
    bool improved = true;
    while (improved && left_ > 0) {
      improved = false;
      for (std::size_t cut = 1; cut + 1 < best_.cuts.size() && left_ > 0; ++cut) {
        while (left_ > 0 && move(cut)) improved = true;
      }
      for (std::size_t distance = 1; !improved && distance + 2 < best_.cuts.size() && left_ > 0; ++distance) {
        for (std::size_t cut = 1; !improved && cut + distance + 1 < best_.cuts.size(); ++cut) {
          improved = move_two(cut, cut + distance);
        }
      }
    }
  }

  bool move(std::size_t cut) {
    const std::vector<int> from = best_.cuts;
    for (const int to : neighbours_[static_cast<std::size_t>(from[cut])]) {
      std::vector<int> path = from;
      path[cut] = to;
      if (left_ > 0 && legal(path) && consider(path)) return true;
    }
    return false;
  }
  // Two ends of stages, neighbouring ones first: what a stage gains on one side, it gives on the other, or it grows or
  // shrinks on both.
  bool move_two(std::size_t one, std::size_t other) {
    const std::vector<int> from = best_.cuts;
    for (const int first : neighbours_[static_cast<std::size_t>(from[one])]) {
      for (const int second : neighbours_[static_cast<std::size_t>(from[other])]) {
        std::vector<int> path = from;
        path[one] = first;
        path[other] = second;
        if (left_ > 0 && legal(path) && consider(path)) return true;
      }
    }
    return false;
  }

  // What is left goes into looking beyond the local optimum: always on from the best partition whose neighbours have
  // not all been tried.
  void widen() {
    while (left_ > 0 && !unexpanded_.empty()) {
      const std::vector<int> from = unexpanded_.begin()->second;
      unexpanded_.erase(unexpanded_.begin());
      for (std::size_t cut = 1; cut + 1 < from.size(); ++cut) {
        for (const int to : neighbours_[static_cast<std::size_t>(from[cut])]) {
          std::vector<int> path = from;
          path[cut] = to;
          if (left_ > 0 && legal(path)) consider(path);
        }
      }
    }
  }

  PartitionTimeline& timeline_;
  const PartitionProblem& problem_;
  const CutGraph& cuts_;
  std::int64_t left_;  // evaluations
  Refined best_;
  std::set<std::vector<int>> known_;
  std::set<std::pair<double, std::vector<int>>> unexpanded_;  // step, path
  std::vector<std::vector<std::int64_t>> ways_;
  std::vector<std::vector<int>> neighbours_;  // by cut
};

}  // namespace

PartitionTimeline::PartitionTimeline(const PartitionProblem& problem, Timeline& timeline)
    : problem_(problem), timeline_(timeline) {
  const std::size_t stages = problem.slots.size();
  costs_.stages.resize(stages);
  costs_.reduce_grad.resize(stages);
  for (std::size_t s = 0; s + 1 < stages; ++s) costs_.hops.push_back(problem.slots[s].hop);
  costs_.reduce_tied = Seconds(problem.reduce_tied);
  costs_.neighbours = problem.neighbours;
}

namespace {

// Differences of sums may fall a rounding error below zero.
ComputeTimes times_of(const CutCosts::Sums& stage, Overheads overheads) {
  const auto seconds = [](double value) { return Seconds(std::max(0.0, value)); };
  return {seconds(stage.forward) + overheads.action, seconds(stage.backward_input) + overheads.action,
          seconds(stage.backward_weight) + overheads.action, seconds(stage.backward_saving) + overheads.action,
          seconds(stage.optimizer) + overheads.step};
}

}  // namespace

double PartitionTimeline::step(std::span<const int> cuts) {
  assert(cuts.size() == problem_.slots.size() + 1);
  for (std::size_t s = 0; s < problem_.slots.size(); ++s) {
    const StageSlot& slot = problem_.slots[s];
    const auto type = static_cast<std::size_t>(slot.type);
    const auto between = [&](const std::vector<CutCosts::Sums>& sums) {
      return sums[static_cast<std::size_t>(cuts[s + 1])] - sums[static_cast<std::size_t>(cuts[s])];
    };
    const CutCosts& costs = problem_.costs;
    const Overheads overheads = overheads_of(costs, slot.type);
    const CutCosts::Sums stage = stage_sums(problem_, slot, cuts[s], cuts[s + 1]);
    const ComputeTimes times = times_of(stage, overheads);
    StageCost& cost = costs_.stages[s];
    cost.forward = times.forward;
    cost.backward_input = times.backward_input;
    cost.backward_weight = times.backward_weight;
    cost.backward_saving = times.backward_saving;
    cost.optimizer = times.optimizer;
    cost.boundary = Bytes(costs.boundary[static_cast<std::size_t>(cuts[s + 1])]);
    cost.beside.clear();
    if (!problem_.neighbours.empty() && type < costs.beside.size()) {
      for (const auto& busy : costs.beside[type]) cost.beside.push_back(times_of(between(busy), overheads));
    }
    costs_.reduce_grad[s] = Seconds(slot.reduce_latency + std::max(0.0, stage.reduced) * slot.reduce_per_byte);
  }
  return timeline_.makespan(costs_).value();
}

Refined refine(PartitionTimeline& timeline, std::span<const std::vector<int>> starts, std::int64_t actions) {
  assert(!starts.empty());
  return Refinement(timeline, actions).run(starts);
}

}  // namespace stagecraft
