#include "planner/partition.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

#include "models/recomputed_layers.hpp"

namespace stagecraft {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::size_t max_front = 2'000;  // labels of one stage and cut

// A stage between two cuts.
struct Terms {
  double forward = 0, backward = 0;
  double hop = 0;   // message to the next stage
  double tail = 0;  // reduction and optimizer step
};

// The rest of the pipeline, from a stage to the last, partitioned in one way.
struct Label {
  double step = 0;      // forwards and messages of these stages + from the first backward until all is done
  double sum = 0;       // forwards, backwards and messages both ways of one micro-batch
  double steady = 0;    // the maximum that is charged at the end: f, or f + b
  double backward = 0;  // the maximum that `step` already charges: b, or nothing
  int target = -1;      // where the first of these stages ends
  int next = -1;        // the label there
};

bool dominates(const Label& a, const Label& b) {
  return a.step <= b.step && a.sum <= b.sum && a.steady <= b.steady && a.backward <= b.backward;
}

// What the stages before a cut must cost at least.
struct PrefixBound {
  double sum = infinity;   // of Label::sum
  double step = infinity;  // of Label::step
  double steady = infinity, backward = infinity;
};

class Pricing {
 public:
  explicit Pricing(const PartitionProblem& problem)
      : problem_(problem),
        stages_(static_cast<int>(problem.slots.size())),
        rounds_(static_cast<double>(problem.microbatches - 1) * problem.chunks),
        share_(1.0 / problem.chunks) {}

  Terms terms(int stage, int from, int to) const {
    const StageSlot& slot = slot_at(stage);
    const CutCosts::Sums sums = stage_sums(problem_, slot, from, to);
    const Overheads more = overheads_of(problem_.costs, slot.type);
    Terms terms{sums.forward + more.action.value(), sums.backward() + more.action.value(), 0,
                sums.optimizer + more.step.value()};
    if (stage + 1 < stages_) {
      terms.hop = slot.hop.transfer_time(Bytes(problem_.costs.boundary[static_cast<std::size_t>(to)])).value();
    }
    if (slot.reduce_per_byte > 0 || slot.reduce_latency > 0) {
      terms.tail += slot.reduce_latency + sums.reduced * slot.reduce_per_byte;
    }
    if (stages_ > 1 && (stage == 0 || stage + 1 == stages_)) terms.tail += problem_.reduce_tied;
    return terms;
  }

  double needed(const StageSlot& slot, int from, int to, std::size_t arc) const {
    return has_blocks(slot, from, to) ? stage_bytes(problem_, slot, from, to, arc) : infinity;
  }
  // That are to recompute.
  bool has_blocks(const StageSlot& slot, int from, int to) const {
    if (problem_.blocks == nullptr) return true;
    const auto& before = problem_.blocks->before;
    return before[static_cast<std::size_t>(to)] - before[static_cast<std::size_t>(from)] >= slot.recomputed;
  }
  bool fits(const StageSlot& slot, int from, int to, std::size_t arc) const {
    return needed(slot, from, to, arc) <= slot.memory;
  }

  double steady(const Terms& t) const {
    return problem_.objective == Objective::gpipe ? t.forward : t.forward + t.backward;
  }
  double backward(const Terms& t) const { return problem_.objective == Objective::gpipe ? t.backward : 0; }
  double sum(const Terms& t) const { return share_ * (t.forward + t.backward + 2 * t.hop); }
  double step(const Terms& t) const { return share_ * (t.forward + t.hop); }

  // Puts a stage in front of a partial solution; an empty label: of nothing.
  Label extend(const Label& rest, const Terms& t) const {
    Label label;
    label.sum = rest.sum + sum(t);
    label.steady = std::max(rest.steady, steady(t));
    label.backward = std::max(rest.backward, backward(t));
    label.step = std::max(rest.step + step(t), label.sum + rounds_ * label.backward + t.tail);
    return label;
  }
  double total(const Label& label) const { return label.step + rounds_ * label.steady; }
  // What any completion of `label` in front costs at least.
  double bound(const Label& label, const PrefixBound& prefix) const {
    const double step = std::max(label.step + prefix.step,
                                 label.sum + prefix.sum + rounds_ * std::max(label.backward, prefix.backward));
    return step + rounds_ * std::max(label.steady, prefix.steady);
  }

  double rounds() const { return rounds_; }
  const StageSlot& slot_at(int stage) const { return problem_.slots[static_cast<std::size_t>(stage)]; }
  const PartitionProblem& problem() const { return problem_; }
  int stages() const { return stages_; }

 private:
  const PartitionProblem& problem_;
  int stages_;
  double rounds_, share_;
};

// How many groups lie before each cut: a cut can end stage s only with enough groups on both sides.
std::vector<int> depths(const CutGraph& cuts) {
  std::vector<int> depth(cuts.nodes.size(), 0);
  for (std::size_t node = 1; node < depth.size(); ++node) {
    depth[node] = depth[static_cast<std::size_t>(cuts.nodes[node].parent)] + 1;
  }
  return depth;
}

class Solver {
 public:
  explicit Solver(const PartitionProblem& problem)
      : pricing_(problem),
        cuts_(problem.cuts),
        depth_(depths(cuts_)),
        stages_(pricing_.stages()),
        is_chain_(cuts_.is_chain()) {
    for (const auto& sums : problem.costs.sums) {
      auto& busy = busy_.emplace_back();
      for (const CutCosts::Sums& cut : sums) busy.push_back(cut.forward + cut.backward());
    }
  }

  std::optional<Partition> solve() {
    if (depth_.back() < stages_) return std::nullopt;
    // Good solutions first, since their values prune the rest: the uniform split, then a search with fronts of one
    // label. The full search proves or beats them.
    std::optional<Partition> best = uniform();
    bound_prefixes(best);
    if (bounds_.back()[static_cast<std::size_t>(cuts_.full())].sum < infinity) {
      for (const std::size_t width : {std::size_t{1}, max_front}) {
        if (auto better = search(width, value(best))) best = std::move(better);
      }
    }
    if (best) best->optimal = !truncated_;
    return best;
  }

 private:
  using Front = std::vector<Label>;

  bool can_start(int stage, int node) const {
    const int depth = depth_[static_cast<std::size_t>(node)];
    return stage == 0 ? node == 0 : depth >= stage && depth_.back() - depth >= stages_ - stage;
  }
  bool can_end(int stage, int node) const {
    return stage + 1 == stages_ ? node == cuts_.full() : can_start(stage + 1, node);
  }

  static double value(const std::optional<Partition>& partition) {
    if (!partition) return infinity;
    return partition->closed_form;
  }

  std::optional<Partition> uniform() const {
    std::vector<int> path = uniform_cuts(cuts_, stages_);
    for (int s = 0; s < stages_; ++s) {
      const auto at = static_cast<std::size_t>(s);
      if (!cuts_.allowed(path[at], path[at + 1], s, stages_)) return std::nullopt;
    }
    if (worst_memory(pricing_.problem(), path).excess() > 0) return std::nullopt;
    const double step = closed_form(pricing_.problem(), path);
    return Partition{std::move(path), step, true};
  }

  // Calls visit(to, terms) for each stage that may begin at a cut, fits, and is not too slow for any solution below
  // `limit`.
  template <class Visit>
  void for_each_arc(int stage, int from, double limit, Visit&& visit) const {
    // The steady state alone, which in both objectives is at least this stage's forward and backward a round.
    const StageSlot& slot = pricing_.slot_at(stage);
    const std::vector<double>& busy = busy_[static_cast<std::size_t>(slot.type)];
    const double latest = pricing_.rounds() > 0
                              ? busy[static_cast<std::size_t>(from)] + limit * (1 + 1e-9) / pricing_.rounds()
                              : infinity;
    auto arc = static_cast<std::size_t>(cuts_.first_arc[static_cast<std::size_t>(from)]);
    for (const CutGraph::Arc& to : cuts_.arcs_from(from)) {
      const std::size_t at = arc++;
      const bool is_slow = busy[static_cast<std::size_t>(to.target)] > latest;
      if (is_slow && is_chain_) return;  // and so are all arcs that follow
      if (is_slow || !can_end(stage, to.target) || !cuts_.allowed(from, to.target, stage, stages_)) continue;
      if (!pricing_.has_blocks(slot, from, to.target)) continue;
      if (pricing_.fits(slot, from, to.target, at)) {
        visit(to.target, pricing_.terms(stage, from, to.target));
      } else if (is_chain_) {
        return;
      }
    }
  }

  void bound_prefixes(const std::optional<Partition>& known) {
    bounds_.assign(static_cast<std::size_t>(stages_) + 1, std::vector<PrefixBound>(cuts_.nodes.size()));
    bounds_[0][0] = {0, 0, 0, 0};
    for (int stage = 0; stage < stages_; ++stage) {
      auto& after = bounds_[static_cast<std::size_t>(stage) + 1];
      for (int from = 0; from <= cuts_.full(); ++from) {
        const PrefixBound& before = bounds_[static_cast<std::size_t>(stage)][static_cast<std::size_t>(from)];
        if (before.sum == infinity || !can_start(stage, from)) continue;
        for_each_arc(stage, from, value(known), [&](int to, const Terms& terms) {
          PrefixBound& bound = after[static_cast<std::size_t>(to)];
          bound.sum = std::min(bound.sum, before.sum + pricing_.sum(terms));
          bound.step = std::min(bound.step, before.step + pricing_.step(terms));
          bound.steady = std::min(bound.steady, std::max(before.steady, pricing_.steady(terms)));
          bound.backward = std::min(bound.backward, std::max(before.backward, pricing_.backward(terms)));
        });
      }
    }
  }

  // The best solution below `limit`, with at most `width` labels a stage and cut.
  std::optional<Partition> search(std::size_t width, double limit) {
    fronts_.assign(static_cast<std::size_t>(stages_) + 1, std::vector<Front>(cuts_.nodes.size()));
    fronts_.back()[static_cast<std::size_t>(cuts_.full())].emplace_back();
    for (int stage = stages_ - 1; stage >= 0; --stage) {
      for (int from = 0; from <= cuts_.full(); ++from) {
        const PrefixBound& prefix = bounds_[static_cast<std::size_t>(stage)][static_cast<std::size_t>(from)];
        if (prefix.sum < infinity && can_start(stage, from)) fill_front(stage, from, prefix, width, limit);
      }
    }
    const Front& solutions = fronts_.front().front();
    if (solutions.empty()) return std::nullopt;
    const auto best = std::min_element(solutions.begin(), solutions.end(), [&](const Label& a, const Label& b) {
      return pricing_.total(a) < pricing_.total(b);
    });
    return trace(*best);
  }

  void fill_front(int stage, int from, const PrefixBound& prefix, std::size_t width, double limit) {
    Front& front = fronts_[static_cast<std::size_t>(stage)][static_cast<std::size_t>(from)];
    for_each_arc(stage, from, limit, [&](int to, const Terms& terms) {
      const Front& rests = fronts_[static_cast<std::size_t>(stage) + 1][static_cast<std::size_t>(to)];
      for (std::size_t rest = 0; rest < rests.size(); ++rest) {
        Label label = pricing_.extend(rests[rest], terms);
        if (pricing_.bound(label, prefix) >= limit) continue;
        // The stages in front will be at least that slow: smaller maxima are no advantage.
        label.steady = std::max(label.steady, prefix.steady);
        label.target = to;
        label.next = static_cast<int>(rest);
        insert(front, label, width);
      }
    });
  }

  void insert(Front& front, const Label& label, std::size_t width) {
    if (width == 1) {
      if (front.empty()) front.push_back(label);
      if (pricing_.total(label) < pricing_.total(front.front())) front.front() = label;
      return;
    }
    for (const Label& other : front) {
      if (dominates(other, label)) return;
    }
    std::erase_if(front, [&](const Label& other) { return dominates(label, other); });
    if (front.size() < width) {
      front.push_back(label);
    } else {
      truncated_ = true;
    }
  }

  Partition trace(const Label& first) const {
    Partition partition;
    partition.cuts.push_back(0);
    const Label* label = &first;
    for (int stage = 0; stage < stages_; ++stage) {
      partition.cuts.push_back(label->target);
      label = &fronts_[static_cast<std::size_t>(stage) + 1][static_cast<std::size_t>(label->target)]
                      [static_cast<std::size_t>(label->next)];
    }
    partition.closed_form = closed_form(pricing_.problem(), partition.cuts);
    return partition;
  }

  Pricing pricing_;
  const CutGraph& cuts_;
  std::vector<int> depth_;
  int stages_;
  bool is_chain_;
  std::vector<std::vector<double>> busy_;         // [type][cut]: forward and backward of the layers inside
  std::vector<std::vector<PrefixBound>> bounds_;  // [stages in front][cut]
  std::vector<std::vector<Front>> fronts_;        // [first stage][cut]
  bool truncated_ = false;
};

}  // namespace

StageNeeds stage_needs(const PartitionProblem& problem, const StageSlot& slot, int from, int to, std::size_t arc) {
  const auto type = static_cast<std::size_t>(slot.type);
  const StageNeeds keeping{sums_between(problem.cuts, problem.costs, slot.type, from, to),
                           problem.costs.workspace[type][arc]};
  if (problem.blocks == nullptr) return keeping;
  const BlockCosts& blocks = *problem.blocks;
  const int first = blocks.before[static_cast<std::size_t>(from)];
  const int most = blocks.before[static_cast<std::size_t>(to)] - first;
  const auto recomputing = [&](int count) {
    if (count == 0) return keeping;
    const auto of_them = [&](const std::vector<double>& sums) {
      const auto before = sums.begin() + first;
      return before[count] - before[0];
    };
    StageNeeds needs{keeping.sums, blocks.workspace[type][arc], count};
    needs.sums.backward_input += of_them(blocks.longer[type]);
    needs.sums.stash -= of_them(blocks.smaller[type]);
    return needs;
  };
  const auto fits = [&](const StageNeeds& needs) { return bytes_of(slot, needs.sums, needs.workspace) <= slot.memory; };
  if (slot.recomputed != fewest_layers) return recomputing(std::min(slot.recomputed, most));
  if (most == 0 || fits(keeping)) return keeping;
  int low = 1, high = most;  // each block more needs less, but the first may need more than none
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (fits(recomputing(middle))) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return recomputing(low);
}

CutCosts::Sums stage_sums(const PartitionProblem& problem, const StageSlot& slot, int from, int to) {
  if (problem.blocks == nullptr) return sums_between(problem.cuts, problem.costs, slot.type, from, to);
  return stage_needs(problem, slot, from, to, static_cast<std::size_t>(problem.cuts.find_arc(from, to))).sums;
}

std::vector<std::int32_t> recomputed_blocks(const PartitionProblem& problem, std::span<const int> cuts) {
  std::vector<std::int32_t> counts;
  if (problem.blocks == nullptr) return counts;
  for (std::size_t s = 0; s < problem.slots.size(); ++s) {
    const auto arc = static_cast<std::size_t>(problem.cuts.find_arc(cuts[s], cuts[s + 1]));
    counts.push_back(stage_needs(problem, problem.slots[s], cuts[s], cuts[s + 1], arc).recomputed);
  }
  return counts;
}

std::optional<Partition> best_partition(const PartitionProblem& problem) {
  assert(!problem.slots.empty() && problem.microbatches > 0);
  return Solver(problem).solve();
}

double closed_form(const PartitionProblem& problem, std::span<const int> cuts) {
  assert(cuts.size() == problem.slots.size() + 1);
  const Pricing pricing(problem);
  Label label;
  for (int stage = pricing.stages() - 1; stage >= 0; --stage) {
    const auto at = static_cast<std::size_t>(stage);
    label = pricing.extend(label, pricing.terms(stage, cuts[at], cuts[at + 1]));
  }
  return pricing.total(label);
}

MemoryNeed worst_memory(const PartitionProblem& problem, std::span<const int> cuts) {
  const Pricing pricing(problem);
  MemoryNeed worst;
  for (int stage = 0; stage < pricing.stages(); ++stage) {
    const auto at = static_cast<std::size_t>(stage);
    const auto arc = static_cast<std::size_t>(problem.cuts.find_arc(cuts[at], cuts[at + 1]));
    const StageSlot& slot = pricing.slot_at(stage);
    const MemoryNeed need{stage, pricing.needed(slot, cuts[at], cuts[at + 1], arc), slot.memory};
    if (stage == 0 || need.share() > worst.share()) worst = need;
  }
  return worst;
}

std::optional<Partition> least_memory_partition(const PartitionProblem& problem) {
  const Pricing pricing(problem);
  const CutGraph& cuts = problem.cuts;
  const std::vector<int> depth = depths(cuts);
  struct Entry {
    double share = infinity;  // of the worst stage from here on
    int target = -1;
  };
  const auto stages = static_cast<std::size_t>(pricing.stages());
  std::vector<std::vector<Entry>> best(stages + 1, std::vector<Entry>(cuts.nodes.size()));
  best.back().back().share = 0;
  for (int stage = pricing.stages() - 1; stage >= 0; --stage) {
    const StageSlot& slot = pricing.slot_at(stage);
    const auto& after = best[static_cast<std::size_t>(stage) + 1];
    for (int from = 0; from < cuts.full(); ++from) {
      if (depth[static_cast<std::size_t>(from)] < stage || (stage == 0 && from > 0)) continue;
      Entry& entry = best[static_cast<std::size_t>(stage)][static_cast<std::size_t>(from)];
      auto arc = static_cast<std::size_t>(cuts.first_arc[static_cast<std::size_t>(from)]);
      for (const CutGraph::Arc& to : cuts.arcs_from(from)) {
        const std::size_t at = arc++;
        const Entry& rest = after[static_cast<std::size_t>(to.target)];
        if (rest.share == infinity || !cuts.allowed(from, to.target, stage, pricing.stages())) continue;
        const double own = pricing.needed(slot, from, to.target, at) / slot.memory;
        if (const double share = std::max(own, rest.share); share < entry.share) entry = {share, to.target};
      }
    }
  }
  if (best.front().front().share == infinity) return std::nullopt;
  Partition partition{{0}, 0, true};
  for (std::size_t stage = 0; stage < stages; ++stage) {
    partition.cuts.push_back(best[stage][static_cast<std::size_t>(partition.cuts.back())].target);
  }
  partition.closed_form = closed_form(problem, partition.cuts);
  return partition;
}

std::vector<int> uniform_cuts(const CutGraph& cuts, int stages) {
  const std::size_t groups = cuts.line.size() - 1;
  assert(stages > 0 && static_cast<std::size_t>(stages) <= groups);
  std::vector<int> path;
  for (std::size_t s = 0; s <= static_cast<std::size_t>(stages); ++s) {
    path.push_back(cuts.line[s * groups / static_cast<std::size_t>(stages)]);
  }
  return path;
}

}  // namespace stagecraft
