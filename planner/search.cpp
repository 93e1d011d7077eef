#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/text.hpp"
#include "planner/assemble.hpp"
#include "planner/downsets.hpp"
#include "planner/infeasible.hpp"
#include "planner/judge.hpp"
#include "planner/planner.hpp"

namespace stagecraft {
namespace {

constexpr DownsetLimits search_limits{5'000, 150'000};      // every layout is partitioned on such a graph
constexpr DownsetLimits polish_limits{200'000, 4'000'000};  // the best few are
constexpr std::int64_t max_positions = 500;                 // of a long chain in the search
// The layouts that the timeline judges are refined a little, the best of them more, and the best of these at length:
// so many of them by evaluating so many actions each, 5 ns an action.
struct Effort {
  std::size_t layouts;
  std::int64_t actions;
};
constexpr Effort efforts[] = {{std::numeric_limits<std::size_t>::max(), 100'000}, {16, 1'000'000}};
constexpr Effort polish_effort{4, 3'000'000};
constexpr std::size_t most_timelines = 4;             // times as many as wanted, while the actions
constexpr std::int64_t affordable_actions = 200'000;  // of all of them are not more
constexpr std::size_t max_detours = 2'000;  // layouts looked at for the best of a schedule that is not among the best

constexpr double infinity = std::numeric_limits<double>::infinity();

// By the objective; where that and the times are equal, the candidate that needs less memory.
bool is_better(const Judgement& a, const Judgement& b) {
  return std::tie(a.score, a.timeline, a.closed_form, a.memory) <
         std::tie(b.score, b.timeline, b.closed_form, b.memory);
}

// Behind the first `keep`: the first of each schedule that the best one has not, then the rest.
template <class Ranked, class ScheduleOf>
void put_other_schedules_first(std::vector<Ranked>& ranked, std::size_t keep, const ScheduleOf& schedule_of) {
  if (ranked.size() <= keep) return;
  std::set schedules{schedule_of(ranked.front())};
  std::vector<Ranked> first, rest;
  for (std::size_t i = keep; i < ranked.size(); ++i) {
    (schedules.insert(schedule_of(ranked[i])).second ? first : rest).push_back(std::move(ranked[i]));
  }
  ranked.erase(ranked.begin() + static_cast<std::ptrdiff_t>(keep), ranked.end());
  for (auto* const part : {&first, &rest}) std::move(part->begin(), part->end(), std::back_inserter(ranked));
}

// The legal cuts that the search works on, and those for the final polish where they are too many for the search.
struct Cuts {
  CutGraph search;
  std::optional<CutGraph> polish;
  std::vector<std::string> notes;
};

Cuts legal_cuts(const LayerGraph& graph, const SearchSpace& space) {
  if (!space.cuts.empty()) return {linear_cuts(graph, space.cuts), std::nullopt, {}};
  if (auto all = downset_cuts(graph, search_limits)) return {std::move(*all), std::nullopt, {}};
  const auto layers = static_cast<std::int64_t>(boost::num_vertices(graph));
  const std::int64_t positions = std::max<std::int64_t>(max_positions, std::int64_t{2} * space.stages.value_or(1));
  Cuts cuts{linear_cuts(graph, layers > positions ? even_positions(graph, positions) : std::vector<std::int64_t>{}),
            downset_cuts(graph, polish_limits),
            {}};
  if (!cuts.polish) {
    cuts.notes.push_back(fmt::format(
        "the network has more than {} legal cuts or {} pairs of them: stages are cut from one order of "
        "its layers, at {} positions of {}",
        with_thousands(polish_limits.cuts), with_thousands(polish_limits.arcs), cuts.search.full() - 1, layers - 1));
  }
  return cuts;
}

Cuts legal_cuts(const Network& network, const SearchSpace& space) {
  Cuts cuts = legal_cuts(network.graph, space);
  if (is_asynchronous(space)) {
    cuts.search.ties_part = false;
    if (cuts.polish) cuts.polish->ties_part = false;
  }
  return cuts;
}

// Without the recomputations that the model cannot price; all of them where it can price none, which it will say
// itself.
SearchSpace priceable(SearchSpace space, const CostModel& model) {
  std::vector<Recompute> known = space.recomputes;
  std::erase_if(known, [&](Recompute recompute) { return !model.knows(recompute); });
  if (!known.empty()) space.recomputes = std::move(known);
  return space;
}

class Search {
 public:
  // All are used, not owned; a `space` that is priceable().
  Search(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space)
      : network_(network),
        cluster_(cluster),
        model_(model),
        space_(space),
        cuts_(legal_cuts(network, space)),
        prices_(network.graph, cluster, model,
                {space.microbatch.value_or(1), space.sequence, space.precision, space.optimizer,
                 searched_recomputes(space).front(), space.fused_attention}),
        judge_(network, cluster, cuts_.search, prices_, space),
        maker_(network, cluster, model, space, judge_) {}

  SearchResult run() {
    result_.objective = space_.objective;
    list();
    partition_all();
    if (best_.empty() && !space_.advise) throw infeasible("no layout of network '{}' fits", printable(network_.name));
    if (best_.empty()) throw nothing_fits(network_, cluster_, model_, space_, judge_, options_);
    simulate_best();
    polish();
    assemble();
    add_near_misses();
    result_.counts.layouts = static_cast<std::int64_t>(options_.size());
    if (cut_off_) result_.notes.push_back("some partitions are good, but not proven best: too many undominated ones");
    result_.notes.insert(result_.notes.end(), prices_.notes().begin(), prices_.notes().end());
    result_.notes.insert(result_.notes.end(), cuts_.notes.begin(), cuts_.notes.end());
    return std::move(result_);
  }

 private:
  void list() {
    SearchSpace space = space_;
    if (!space.cuts.empty()) space.stages = static_cast<int>(space.cuts.size()) + 1;
    const int devices = usable_devices(cluster_, space);
    LayoutList listed = list_layouts(space, static_cast<std::int64_t>(cuts_.search.groups.size()), devices);
    if (listed.options.empty()) throw no_layout(space, listed, devices);
    if (listed.too_long > 0) {
      result_.notes.push_back(
          fmt::format("{} combinations with very many micro-batches were left out", with_thousands(listed.too_long)));
    }
    options_ = std::move(listed.options);
    if (!space.recompute) {
      std::erase_if(options_, [&](const LayoutOption& option) {
        return prices_.repeats(option.layout.microbatch, option.layout.recompute);
      });
    }
    for (LayoutOption& option : options_) estimates_.push_back(judge_.least_score(option));
    rank_by_estimate();
  }

  void rank_by_estimate() {
    std::vector<std::size_t> by_estimate(options_.size());
    for (std::size_t i = 0; i < by_estimate.size(); ++i) by_estimate[i] = i;
    std::stable_sort(by_estimate.begin(), by_estimate.end(),
                     [&](std::size_t a, std::size_t b) { return estimates_[a] < estimates_[b]; });
    std::vector<LayoutOption> options;
    std::vector<double> estimates;
    for (const std::size_t i : by_estimate) {
      options.push_back(std::move(options_[i]));
      estimates.push_back(estimates_[i]);
    }
    options_ = std::move(options);
    estimates_ = std::move(estimates);
  }

  // Partitions layouts by rising estimate until none that is left can be among the best in the closed form.
  void partition_all() {
    std::set<std::size_t> schedules;  // that have a feasible layout
    std::size_t detours = 0;
    for (std::size_t i = 0; i < options_.size(); ++i) {
      const bool is_hopeful = estimates_[i] < threshold_;
      const bool is_new = !schedules.contains(options_[i].schedule) && detours < max_detours;
      if (!is_hopeful && !is_new) {
        ++result_.counts.outclassed;
        continue;
      }
      detours += is_hopeful ? 0 : 1;
      if (partition(options_[i], is_new ? infinity : threshold_)) schedules.insert(options_[i].schedule);
    }
  }

  // Adds the layout's best partition to the best few, where its score can be below `most`; whether it has one that
  // fits.
  bool partition(const LayoutOption& option, double most) {
    bool feasible = false, skipped = false;
    for (const Geometry& geometry : judge_.geometries(option.layout)) {
      if (judge_.least_score(option, geometry) >= most) {
        skipped = true;
        continue;
      }
      auto judgement = judge_.partition(option, geometry);
      if (!judgement) continue;
      feasible = true;
      cut_off_ = cut_off_ || !judgement->partition.optimal;
      const auto at = std::upper_bound(best_.begin(), best_.end(), *judgement, is_better);
      best_.insert(at, std::move(*judgement));
    }
    ++(feasible ? result_.counts.partitioned : skipped ? result_.counts.outclassed : result_.counts.out_of_memory);
    if (!feasible) misfits_.push_back(option);
    trim();
    return feasible;
  }

  // Keeps the best few, and beyond them the best of each schedule.
  void trim() {
    const auto timelines = static_cast<std::size_t>(std::max(1, space_.timelines));
    const std::size_t few = affordable(timelines, most_timelines * timelines);
    if (few < best_.size()) threshold_ = std::min(threshold_, best_[few - 1].score);
    std::set<std::size_t> schedules;
    std::size_t kept = 0;
    std::erase_if(best_, [&](const Judgement& judgement) {
      const bool is_first = schedules.insert(judgement.option.schedule).second;
      return kept++ >= few && !is_first;
    });
  }

  // So many of the best: `least`, or while their actions are few up to `most`.
  std::size_t affordable(std::size_t least, std::size_t most) const {
    std::size_t count = 0;
    std::int64_t actions = 0;
    for (; count < std::min(most, best_.size()); ++count) {
      const Layout& layout = best_[count].option.layout;
      actions += 2 * layout.microbatches * layout.stages;
      if (count >= least && actions > affordable_actions) break;
    }
    return count;
  }

  // Refined a little, so that the closed form's favour for one kind of partition does not decide.
  void simulate_best() {
    result_.counts.simulated = static_cast<std::int64_t>(best_.size());
    for (const Effort& effort : efforts) simulate(effort);
  }

  void simulate(const Effort& effort) {
    for (std::size_t i = 0; i < std::min(effort.layouts, best_.size()); ++i) {
      judge_.simulate(best_[i], effort.actions);
    }
    rank();
  }

  void polish() {
    simulate(polish_effort);
    if (!cuts_.polish) return;
    polish_on_all_cuts();
    rank();
  }

  // Of layouts that differ only in their schedule and take the same time, the one that needs least memory says it all.
  void rank() {
    std::stable_sort(best_.begin(), best_.end(), is_better);
    std::vector<Judgement> kept;
    for (Judgement& judgement : best_) {
      const bool known = std::any_of(kept.begin(), kept.end(), [&](const Judgement& other) {
        Layout layout = other.layout();
        layout.schedule = judgement.option.layout.schedule;
        return layout == judgement.layout() && other.geometry == judgement.geometry &&
               judgement.timeline - other.timeline <= 1e-9 * other.timeline;
      });
      if (!known) kept.push_back(std::move(judgement));
    }
    best_ = std::move(kept);
  }

  // The same layouts on the graph of all legal cuts: kept where the timeline agrees that they are better.
  void polish_on_all_cuts() {
    fine_judge_.emplace(network_, cluster_, *cuts_.polish, prices_, space_);
    for (std::size_t i = 0; i < std::min(polish_effort.layouts, best_.size()); ++i) {
      const LayoutOption option = best_[i].option;
      for (const Geometry& geometry : fine_judge_->geometries(option.layout)) {
        if (geometry.assignment != best_[i].geometry->assignment) continue;
        auto judgement = fine_judge_->partition(option, geometry);
        if (!judgement) continue;
        fine_judge_->simulate(*judgement, polish_effort.actions);
        if (judgement->score < best_[i].score) best_[i] = std::move(*judgement);
      }
    }
  }

  void assemble() {
    const auto keep = static_cast<std::size_t>(std::max(1, space_.keep));
    if (!space_.contend) {
      put_other_schedules_first(best_, keep, [](const Judgement& judgement) { return judgement.option.schedule; });
    }
    best_.resize(space_.contend ? affordable(2 * keep, best_.size()) : std::min(2 * keep, best_.size()));
    for (const Judgement& judgement : best_) result_.ranked.push_back(maker_.make(judgement));
    std::stable_sort(result_.ranked.begin(), result_.ranked.end(), [&](const RankedPlan& a, const RankedPlan& b) {
      return score_of(a.candidate, space_.objective) < score_of(b.candidate, space_.objective);
    });
  }

  // Layouts that would have been faster but do not fit, those that lack least first: half of the near misses.
  void add_near_misses() {
    add_misfits();
    const auto lack = [](const Candidate& c) { return c.shortage->needed / c.shortage->available; };
    std::stable_sort(result_.near_misses.begin(), result_.near_misses.end(),
                     [&](const Candidate& a, const Candidate& b) { return lack(a) < lack(b); });
    const auto half = static_cast<std::size_t>((std::max(0, space_.keep) + 1) / 2);
    result_.near_misses.resize(std::min(result_.near_misses.size(), half));
  }

  // Of each schedule and recomputation the one that needs least memory on average.
  void add_misfits() {
    if (space_.objective == LayoutObjective::memory) return;  // what fits needs less
    constexpr int tries = 3;                                  // a kind of misfit: the mean is not the worst stage
    std::vector<std::pair<double, const LayoutOption*>> order;
    for (const LayoutOption& option : misfits_) {
      if (judge_.least_score(option) < best_.front().score) {
        order.emplace_back(judge_.mean_memory(option), &option);
      }
    }
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::map<std::pair<std::size_t, Recompute>, int> tried;
    for (const auto& [memory, option] : order) {
      int& count = tried[{option->schedule, option->layout.recompute}];
      if (count < tries) count = add_misfit(*option) ? tries : count + 1;
    }
  }

  bool add_misfit(const LayoutOption& option) {
    constexpr double near = 4;  // times the memory that there is
    for (const Geometry& geometry : judge_.geometries(option.layout)) {
      const PartitionProblem problem = judge_.problem(option, geometry);
      const auto partition = least_memory_partition(problem);
      if (!partition || judge_.score(geometry, partition->closed_form, 0) >= best_.front().score) continue;
      const Shortage shortage = shortage_of(cluster_, problem, geometry, partition->cuts);
      if (shortage.needed > shortage.available * near) continue;
      Candidate candidate;
      candidate.layout = option.layout;
      candidate.fate = Fate::out_of_memory;
      candidate.closed_form = Seconds(partition->closed_form);
      candidate.shortage = shortage;
      candidate.stages = stage_ranges(cuts_.search, partition->cuts).stages;
      candidate.devices = types_along(cluster_, geometry.assignment);
      result_.near_misses.push_back(std::move(candidate));
      return true;
    }
    return false;
  }

  const Network& network_;
  const Cluster& cluster_;
  const CostModel& model_;
  const SearchSpace& space_;
  Cuts cuts_;
  PriceList prices_;
  Judge judge_;
  PlanMaker maker_;
  std::optional<Judge> fine_judge_;
  std::vector<LayoutOption> options_;  // by rising estimate
  std::vector<double> estimates_;      // seconds
  std::vector<Judgement> best_;        // by closed form, then by timeline
  double threshold_ = infinity;        // in the closed form, of layouts that may be among the best
  std::vector<LayoutOption> misfits_;
  bool cut_off_ = false;
  SearchResult result_;
};

}  // namespace

SearchResult search(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space) {
  check_space(space, network, cluster);
  const SearchSpace known = priceable(space, model);
  SearchResult result = Search(network, cluster, model, known).run();
  if (!space.contend) keep_best(result, space.keep);
  if (!space.recompute && known.recomputes.size() < space.recomputes.size()) {
    std::vector<std::string> tried;
    for (const Recompute recompute : known.recomputes) tried.emplace_back(name(recompute));
    result.notes.push_back(fmt::format("recomputation: {} tried, as no others were measured", join(tried)));
  }
  return result;
}

void keep_best(SearchResult& result, int keep) {
  const auto ranked = static_cast<std::size_t>(std::max(1, keep));
  put_other_schedules_first(result.ranked, ranked,
                            [](const RankedPlan& plan) { return plan.candidate.layout.schedule; });
  std::vector<Candidate>& misses = result.near_misses;
  std::erase_if(misses, [&](const Candidate& miss) {
    return std::any_of(result.ranked.begin(), result.ranked.end(),
                       [&](const RankedPlan& plan) { return same_plan(plan.candidate, miss); });
  });
  for (std::size_t i = ranked; i < result.ranked.size() && std::ssize(misses) < keep; ++i) {
    misses.push_back(std::move(result.ranked[i].candidate));
  }
  result.ranked.resize(std::min(result.ranked.size(), ranked));
}

}  // namespace stagecraft
