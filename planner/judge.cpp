#include "planner/judge.hpp"

#include <algorithm>
#include <limits>

#include "models/cost/communication.hpp"
#include "models/cost/pipeline_formulas.hpp"
#include "models/recomputed_layers.hpp"
#include "models/schedule/checker.hpp"

namespace stagecraft {
namespace {

bool is_gpipe(const Layout& layout) { return layout.schedule == "gpipe"; }

// Replicas that share the optimizer's state.
int sharers(const Layout& layout) { return layout.zero == 1 ? layout.replicas : 1; }

ComputeSchedule make(const LayoutOption& option) {
  const Layout& layout = option.layout;
  return make_schedule(layout.schedule, {layout.ranks, option.chunks(), static_cast<int>(layout.microbatches)});
}

// Known without generating the schedule, which takes longer than a partition.
std::optional<ScheduleFacts> known_facts(const Layout& layout) {
  if (layout.schedule != "gpipe" && layout.schedule != "1f1b") return std::nullopt;
  ScheduleFacts facts;
  for (int stage = 0; stage < layout.stages; ++stage) {
    const std::int64_t most = is_gpipe(layout) ? layout.microbatches : layout.stages - stage;
    facts.in_flight.push_back(static_cast<int>(std::min(layout.microbatches, most)));
    facts.split.push_back(0);
    facts.ranks.push_back(RankId{stage});
  }
  return facts;
}

// Of the blocks that are not counted: all, or those beside the ones that are.
Recompute uncounted(const Layout& layout) { return layout.recomputed_layers ? Recompute::none : layout.recompute; }

// Whether a shared table's owner is in the first stage and its user in another.
bool parts_a_table(const CutGraph& cuts, std::span<const int> path) {
  const CutGraph::Node& first = cuts.nodes[static_cast<std::size_t>(path[1])];
  return path.size() > 2 && (first.owners & ~first.users) != 0;
}

}  // namespace

Layout Judgement::layout() const {
  Layout layout = option.layout;
  if (!recomputed.empty() && std::count(recomputed.begin(), recomputed.end(), 0) == std::ssize(recomputed)) {
    layout.recompute = Recompute::none;
    layout.recomputed_layers.reset();
  }
  return layout;
}

Judge::Judge(const Network& network, const Cluster& cluster, const CutGraph& cuts, PriceList& prices,
             const SearchSpace& space)
    : network_(network), cluster_(cluster), cuts_(cuts), prices_(prices), space_(space) {}

const LayerPrices& Judge::layer_prices(const Layout& layout, Recompute recompute, int sharers) {
  return prices_.at(layout.microbatch, layout.microbatches, recompute, sharers);
}

double Judge::score(const Geometry& geometry, double step, double memory) const {
  switch (space_.objective) {
    case LayoutObjective::time:
      return step;
    case LayoutObjective::cost:
      return geometry.price * step;
    case LayoutObjective::memory:
      return memory;
  }
  return 0;
}

double Judge::least_score(const LayoutOption& option) {
  double least = std::numeric_limits<double>::infinity();
  for (const Geometry& geometry : geometries(option.layout)) least = std::min(least, least_score(option, geometry));
  return least == std::numeric_limits<double>::infinity() ? 0 : least;  // no devices: partition() will say so
}

double Judge::least_score(const LayoutOption& option, const Geometry& geometry) {
  double memory = 0;
  if (space_.objective == LayoutObjective::memory) {
    const LayerPrices& prices = layer_prices(option.layout, option.layout.recompute, sharers(option.layout));
    const auto& in_flight = facts(option).in_flight;
    memory = (prices.resident + prices.stash * *std::min_element(in_flight.begin(), in_flight.end())) / geometry.memory;
  }
  return score(geometry, least_closed_form(option, geometry), memory);
}

double Judge::least_closed_form(const LayoutOption& option, const Geometry& geometry) {
  const Layout& layout = option.layout;
  // Of those that are counted it may be that none recomputes.
  const LayerPrices& prices = layer_prices(layout, uncounted(layout), sharers(layout));
  const auto [entry, is_new] = bottlenecks_.try_emplace({&prices, layout.stages}, 0);
  if (is_new) entry->second = prices_.least_bottleneck(prices, layout.stages);
  const int chunks = option.chunks();
  double bottleneck = chunks * entry->second;
  if (chunks == 1 && known_facts(layout)) {
    // Stages that all take that long do no more than their devices can.
    double speed = 0;
    for (const int type : geometry.types) speed += 1 / prices.slowdown[static_cast<std::size_t>(type)];
    bottleneck = std::max(bottleneck, prices.latency / speed);
  }
  const double steady = static_cast<double>(layout.microbatches - 1) * bottleneck;
  // Some stage reduces at least its share of the gradients, after its last backward; at most the backwards of the
  // stages in front follow, which the latency counts already.
  return steady + std::max(prices.latency / chunks, prices.forward / chunks + geometry.least_tail);
}

// Fastest types first, and largest memories first where that differs.
std::vector<std::vector<int>> Judge::preferences() {
  const LayerPrices& prices = prices_.base();
  const auto time = [&](int type) {
    double sum = 0;
    const auto& costs = prices.costs[static_cast<std::size_t>(prices_.index_of(type))];
    for (std::size_t c = 0; c < costs.size(); ++c) {
      sum += static_cast<double>(prices_.classes().counts[c]) *
             (costs[c].forward + costs[c].backward_input + costs[c].backward_weight).value();
    }
    return sum;
  };
  const auto memory = [&](int type) { return cluster_.device_types[static_cast<std::size_t>(type)].memory; };
  std::vector<int> fastest = prices_.types(), largest = prices_.types();
  std::stable_sort(fastest.begin(), fastest.end(), [&](int a, int b) { return time(a) < time(b); });
  std::stable_sort(largest.begin(), largest.end(), [&](int a, int b) { return memory(a) > memory(b); });
  if (fastest == largest) return {fastest};
  return {fastest, largest};
}

// Of one replica, those of groups counted.
int Judge::devices_of(const Assignment& assignment) const {
  int count = 0;
  for (const int type : assignment.types) count += cluster_.device_types[static_cast<std::size_t>(type)].group;
  return count;
}

const std::vector<Geometry>& Judge::geometries(const Layout& layout) {
  const auto [entry, is_new] = geometries_.try_emplace({layout.ranks, layout.replicas});
  std::vector<Geometry>& all = entry->second;
  if (!is_new) return all;
  // An all-reduce is linear in its bytes, piece by piece: measured around the mean stage's gradients.
  const LayerPrices& prices = prices_.base(sharers(layout));
  const Bytes mean(std::max(1.0, prices.reduced / layout.ranks));
  // Where not all devices are taken, it matters which: for the least cost, or less memory, any may stay idle.
  const int all_devices = devices_in(cluster_);
  const bool every_split = space_.devices.value_or(all_devices) < all_devices || space_.memory_share < 1 ||
                           space_.objective == LayoutObjective::cost;
  for (Assignment& assignment : assignments(cluster_, preferences(), layout.ranks, layout.replicas, every_split)) {
    if (space_.devices && layout.replicas * devices_of(assignment) > *space_.devices) continue;
    Geometry geometry;
    for (const int type : assignment.types) geometry.types.push_back(prices_.index_of(type));
    for (const int type : assignment.types) {
      const DeviceType& device = cluster_.device_types[static_cast<std::size_t>(type)];
      geometry.memory += device.memory.value();
      geometry.price += layout.replicas * (device.price > 0 ? device.price : device.group);
    }
    for (std::size_t rank = 0; rank < assignment.types.size(); ++rank) {
      std::vector<DeviceId> replicas;
      for (const auto& row : assignment.devices) replicas.push_back(row[rank]);
      const double once = all_reduce_time(cluster_, replicas, mean).value();
      const double twice = all_reduce_time(cluster_, replicas, mean * 2).value();
      geometry.reduce_per_byte.push_back((twice - once) / mean.value());
      geometry.reduce_latency.push_back(std::max(0.0, 2 * once - twice));
    }
    for (std::size_t rank = 0; rank < geometry.types.size(); ++rank) {
      const double tail =
          geometry.reduce_latency[rank] + geometry.reduce_per_byte[rank] * prices.reduced / layout.ranks;
      geometry.least_tail = rank == 0 ? tail : std::min(geometry.least_tail, tail);
    }
    geometry.assignment = std::move(assignment);
    all.push_back(std::move(geometry));
  }
  return all;
}

const CutCosts& Judge::costs(const Layout& layout) {
  const LayerPrices& prices = layer_prices(layout, uncounted(layout), sharers(layout));
  const auto [entry, is_new] = costs_.try_emplace(&prices);
  if (is_new) {
    const auto& class_of = prices_.classes().class_of;
    CutCosts& costs = entry->second;
    costs = cut_costs(cuts_, network_.graph, class_of, prices.costs, prices.workload);
    costs.overheads = prices_.overheads();
    for (const auto& of_type : prices.beside) {
      auto& beside = costs.beside.emplace_back();
      for (const std::vector<LayerCost>& busy : of_type) beside.push_back(cut_sums(cuts_, class_of, busy));
    }
  }
  return entry->second;
}

const BlockCosts& Judge::block_costs_of(const Layout& layout) {
  const LayerPrices& recomputed = layer_prices(layout, layout.recompute, 1);
  const auto [entry, is_new] = block_costs_.try_emplace(&recomputed);
  if (is_new) {
    entry->second = block_costs(cuts_, network_.graph, prices_.classes().class_of,
                                layer_prices(layout, Recompute::none, 1).costs, recomputed.costs);
  }
  return entry->second;
}

const ScheduleFacts& Judge::facts(const LayoutOption& option) {
  const Layout& layout = option.layout;
  const auto [entry, is_new] = facts_.try_emplace({option.schedule, layout.stages, layout.ranks, layout.microbatches});
  if (!is_new) return entry->second;
  if (auto known = known_facts(layout)) {
    entry->second = std::move(*known);
  } else {
    const ComputeSchedule schedule = make(option);
    const Placement on(schedule);
    std::vector<int> stages(schedule.ranks.size());
    for (std::int32_t stage = 0; stage < schedule.stages; ++stage) {
      for (const RankId rank : on.ranks(StageId{stage})) ++stages[static_cast<std::size_t>(rank.value)];
    }
    entry->second = {peak_in_flight_by_stage(schedule), peak_split_by_stage(schedule), placement(schedule),
                     *std::max_element(stages.begin(), stages.end())};
  }
  return entry->second;
}

// The slowest of the replicas' paths between two ranks.
Link Judge::hop(const Geometry& geometry, RankId from, RankId to) const {
  std::optional<Link> slowest;
  for (const auto& row : geometry.assignment.devices) {
    const Link path = cluster_.path(row[static_cast<std::size_t>(from.value)], row[static_cast<std::size_t>(to.value)]);
    if (!slowest || path.bandwidth < slowest->bandwidth ||
        (path.bandwidth == slowest->bandwidth && path.latency > slowest->latency)) {
      slowest = path;
    }
  }
  return *slowest;
}

double Judge::reduce_tied(const Geometry& geometry, double bytes) const {
  Seconds slowest;
  for (const auto& row : geometry.assignment.devices) {
    if (row.size() < 2 || bytes <= 0) continue;
    slowest = std::max(slowest, all_reduce_time(cluster_, std::vector{row.front(), row.back()}, Bytes(bytes)));
  }
  return slowest.value();
}

PartitionProblem Judge::problem(const LayoutOption& option, const Geometry& geometry) {
  const Layout& layout = option.layout;
  const ScheduleFacts& schedule = facts(option);
  const CutCosts& priced = costs(layout);
  PartitionProblem problem{
      cuts_,           priced, {}, layout.microbatches, is_gpipe(layout) ? Objective::gpipe : Objective::one_f_one_b,
      option.chunks(), 0,      {}};
  if (layout.recomputed_layers) problem.blocks = &block_costs_of(layout);
  for (std::size_t s = 0; s < schedule.ranks.size(); ++s) {
    const auto rank = static_cast<std::size_t>(schedule.ranks[s].value);
    StageSlot slot;
    slot.type = geometry.types[rank];
    // A rank with several stages gives each an equal part: sound, though a lopsided split might have fitted, too.
    slot.memory = space_.memory_share *
                  cluster_.device_types[static_cast<std::size_t>(geometry.assignment.types[rank])].memory.value() /
                  schedule.stages_on_rank;
    slot.reserved = priced.overheads[static_cast<std::size_t>(slot.type)].reserved.value() / schedule.stages_on_rank;
    slot.in_flight = schedule.in_flight[s];
    if (layout.recomputed_layers) {
      slot.recomputed =
          *layout.recomputed_layers == listed_layers ? space_.recomputed_blocks[rank] : *layout.recomputed_layers;
    }
    slot.split = schedule.split[s];
    slot.reduce_latency = geometry.reduce_latency[rank];
    slot.reduce_per_byte = geometry.reduce_per_byte[rank];
    if (s + 1 < schedule.ranks.size()) slot.hop = hop(geometry, schedule.ranks[s], schedule.ranks[s + 1]);
    problem.slots.push_back(slot);
  }
  problem.neighbours = neighbours_of(cluster_, geometry.assignment.devices);
  if (schedule.ranks.front() != schedule.ranks.back()) problem.reduce_tied = reduce_tied(geometry, priced.tied);
  return problem;
}

double Judge::mean_memory(const LayoutOption& option) {
  const LayerPrices& prices = layer_prices(option.layout, option.layout.recompute, sharers(option.layout));
  double in_flight = 0;
  for (const int count : facts(option).in_flight) in_flight += count;
  return (prices.resident + prices.stash * in_flight / option.layout.stages) / option.layout.ranks;
}

bool Judge::may_fit(const PartitionProblem& problem) const {
  if (!cuts_.is_chain()) return true;
  // In a chain: each stage takes as much as fits, even if that is nothing, and the last must reach the end.
  int at = 0;
  for (const StageSlot& slot : problem.slots) {
    int reached = at;
    auto arc = static_cast<std::size_t>(cuts_.first_arc[static_cast<std::size_t>(at)]);
    for (; reached < cuts_.full(); ++reached, ++arc) {
      if (stage_bytes(problem, slot, at, reached + 1, arc) > slot.memory) break;
    }
    if (reached == cuts_.full()) return true;
    at = reached;
  }
  return false;
}

std::optional<Judgement> Judge::partition(const LayoutOption& option, const Geometry& geometry) {
  const PartitionProblem to_split = problem(option, geometry);
  if (!may_fit(to_split)) return std::nullopt;
  auto best = space_.objective == LayoutObjective::memory ? least_memory_partition(to_split) : best_partition(to_split);
  if (!best) return std::nullopt;
  const MemoryNeed worst = worst_memory(to_split, best->cuts);
  if (worst.excess() > 0) return std::nullopt;
  const double step = closed_form_step(to_split, best->cuts), memory = worst.share() * space_.memory_share;
  return Judgement{option, &geometry, &cuts_, std::move(*best), step, 0, memory, score(geometry, step, memory)};
}

Timeline& Judge::timeline(const LayoutOption& option, bool tied_ends) {
  const Layout& layout = option.layout;
  const bool data_parallel = layout.replicas > 1;
  auto& timeline = timelines_[{ShapeKey{option.schedule, layout.stages, layout.ranks, layout.microbatches},
                               data_parallel, tied_ends}];
  if (!timeline) timeline = std::make_unique<Timeline>(lower(make(option), {data_parallel, tied_ends}));
  return *timeline;
}

void Judge::simulate(Judgement& judgement, std::int64_t actions) {
  const PartitionProblem to_split = problem(judgement.option, *judgement.geometry);
  std::vector<int>& cuts = judgement.partition.cuts;
  PartitionTimeline timeline_of(to_split, timeline(judgement.option, parts_a_table(cuts_, cuts)));
  if (actions == 0 || space_.objective == LayoutObjective::memory) {
    judgement.timeline = timeline_of.step(cuts);
  } else {
    improve(judgement, to_split, timeline_of, actions);
  }
  judgement.recomputed = recomputed_blocks(to_split, cuts);
  judgement.score = score(*judgement.geometry, judgement.timeline, judgement.memory);
}

void Judge::improve(Judgement& judgement, const PartitionProblem& to_split, PartitionTimeline& timeline_of,
                    std::int64_t actions) const {
  std::vector<int>& cuts = judgement.partition.cuts;
  std::vector<std::vector<int>> starts{cuts};
  const std::vector<int> uniform = uniform_cuts(cuts_, judgement.option.layout.stages);
  bool legal = worst_memory(to_split, uniform).excess() <= 0;
  for (std::size_t s = 0; s + 1 < uniform.size(); ++s) {
    legal = legal && cuts_.allowed(uniform[s], uniform[s + 1], static_cast<int>(s), judgement.option.layout.stages);
  }
  if (legal) starts.push_back(uniform);
  Refined refined = refine(timeline_of, starts, actions);
  cuts = std::move(refined.cuts);
  judgement.timeline = refined.step;
  judgement.closed_form = closed_form_step(to_split, cuts);
  judgement.memory = worst_memory(to_split, cuts).share() * space_.memory_share;
}

double closed_form_step(const PartitionProblem& problem, std::span<const int> cuts) {
  const double objective = closed_form(problem, cuts);
  if (problem.objective == Objective::gpipe || problem.chunks > 1) return objective;
  std::vector<MicrobatchTimes> stages;
  std::vector<Seconds> hops;
  Seconds plain, slowest;
  for (std::size_t s = 0; s < problem.slots.size(); ++s) {
    const CutCosts::Sums stage = stage_sums(problem, problem.slots[s], cuts[s], cuts[s + 1]);
    const Seconds action = overheads_of(problem.costs, problem.slots[s].type).action;
    stages.push_back({Seconds(stage.forward) + action, Seconds(stage.backward()) + action});
    plain += stages.back().forward + stages.back().backward;
    slowest = std::max(slowest, stages.back().forward + stages.back().backward);
    if (s + 1 == problem.slots.size()) break;
    hops.push_back(
        problem.slots[s].hop.transfer_time(Bytes(problem.costs.boundary[static_cast<std::size_t>(cuts[s + 1])])));
    plain += hops.back() * 2;
  }
  plain += slowest * static_cast<double>(problem.microbatches - 1);
  const Seconds stretched = one_f_one_b_estimate(stages, hops, problem.microbatches);
  return objective + std::max(0.0, (stretched - plain).value());
}

}  // namespace stagecraft
