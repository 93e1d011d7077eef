#include "planner/infeasible.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "models/recomputed_layers.hpp"
#include "models/text.hpp"
#include "planner/explain.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_tries = 200;  // layouts looked at for an answer

// The options that need least memory on average, fewest bytes first.
std::vector<LayoutOption> smallest(Judge& judge, std::span<const LayoutOption> options) {
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t i = 0; i < options.size(); ++i) order.emplace_back(judge.mean_memory(options[i]), i);
  std::sort(order.begin(), order.end());
  std::vector<LayoutOption> result;
  for (std::size_t i = 0; i < std::min(order.size(), max_tries); ++i) result.push_back(options[order[i].second]);
  return result;
}

struct Nearest {
  Layout layout;
  std::optional<Shortage> shortage;
};

Nearest nearest_to_fit(Judge& judge, const Cluster& cluster, std::span<const LayoutOption> options) {
  Nearest nearest;
  double least = std::numeric_limits<double>::infinity();
  for (const LayoutOption& option : smallest(judge, options)) {
    for (const Geometry& geometry : judge.geometries(option.layout)) {
      const PartitionProblem problem = judge.problem(option, geometry);
      const auto partition = least_memory_partition(problem);
      if (!partition) continue;
      const double share = worst_memory(problem, partition->cuts).share();
      if (share >= least) continue;
      least = share;
      nearest = {option.layout, shortage_of(cluster, problem, geometry, partition->cuts)};
    }
  }
  return nearest;
}

// A layout that fits, one of those that need least.
std::optional<Layout> first_fit(const Network& network, const Cluster& cluster, const CostModel& model,
                                const SearchSpace& space) {
  CutGraph cuts = linear_cuts(network.graph, space.cuts);
  cuts.ties_part = !is_asynchronous(space);
  if (cuts.groups.size() > 2'000) return std::nullopt;
  PriceList prices(network.graph, cluster, model,
                   {space.microbatch.value_or(1), space.sequence, space.precision, space.optimizer,
                    searched_recomputes(space).front(), space.fused_attention});
  SearchSpace anywhere = space;  // the limit is on the layouts listed
  anywhere.devices.reset();
  Judge judge(network, cluster, cuts, prices, anywhere);
  const int all = static_cast<int>(cluster.devices.size());
  const LayoutList listed =
      list_layouts(space, static_cast<std::int64_t>(cuts.groups.size()), std::min(all, space.devices.value_or(all)));
  for (const LayoutOption& option : smallest(judge, listed.options)) {
    for (const Geometry& geometry : judge.geometries(option.layout)) {
      if (judge.partition(option, geometry)) return option.layout;
    }
  }
  return std::nullopt;
}

struct Freedom {
  std::string what;  // "another recompute"
  std::function<void(SearchSpace&)> free;
};

// What the caller has fixed and could free.
std::vector<Freedom> freedoms(const SearchSpace& space) {
  std::vector<Freedom> list;
  const auto add = [&](bool fixed, std::string what, std::function<void(SearchSpace&)> free) {
    if (fixed) list.push_back({std::move(what), std::move(free)});
  };
  add(space.recompute.has_value(), "another recompute", [](SearchSpace& s) { s.recompute.reset(); });
  add(space.recomputed_layers.has_value(), "other blocks recomputed",
      [](SearchSpace& s) { s.recomputed_layers.reset(); });
  add(space.microbatch.has_value(), "another micro-batch", [](SearchSpace& s) { s.microbatch.reset(); });
  add(space.schedule.has_value(), "another schedule", [](SearchSpace& s) { s.schedule.reset(); });
  add(space.stages || space.ranks || space.stages_per_rank || !space.cuts.empty(), "other stages", [](SearchSpace& s) {
    s.stages.reset();
    s.ranks.reset();
    s.stages_per_rank.reset();
    s.cuts.clear();
  });
  add(space.replicas.has_value(), "other replicas", [](SearchSpace& s) { s.replicas.reset(); });
  add(space.devices.has_value(), "more devices", [](SearchSpace& s) { s.devices.reset(); });
  return list;
}

std::string advice(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space) {
  const std::vector<Freedom> list = freedoms(space);
  SearchSpace all = space;
  for (const Freedom& freedom : list) {
    SearchSpace freed = space;
    freedom.free(freed);
    freedom.free(all);
    if (const auto layout = first_fit(network, cluster, model, freed)) {
      return fmt::format("with {} it fits, e.g. {}", freedom.what, to_string(*layout));
    }
  }
  if (list.size() > 1) {
    if (const auto layout = first_fit(network, cluster, model, all)) {
      return fmt::format(
          "with stages, replicas, micro-batch, schedule, recompute and devices left to the search it "
          "fits, e.g. {}",
          to_string(*layout));
    }
  }
  PriceList prices(
      network.graph, cluster, model,
      {1, space.sequence, space.precision, space.optimizer, searched_recomputes(space).front(), space.fused_attention});
  Bytes memory;
  const std::vector<int>& types = prices.types();  // others do not compute in the precision
  for (const Device& device : cluster.devices) {
    if (std::find(types.begin(), types.end(), device.type) == types.end()) continue;
    memory += cluster.device_types[static_cast<std::size_t>(device.type)].memory;
  }
  return fmt::format(
      "weights, gradients and optimizer state alone are {} and all usable devices of cluster '{}' together "
      "have {}: more or larger devices, a smaller network, batch or sequence would help",
      to_string(Bytes(prices.base().resident)), printable(cluster.name), to_string(memory));
}

}  // namespace

Shortage shortage_of(const Cluster& cluster, const PartitionProblem& problem, const Geometry& geometry,
                     std::span<const int> cuts) {
  const MemoryNeed need = worst_memory(problem, cuts);
  // Slots know types as the price list counts them; the geometry has both, by rank.
  const int type = problem.slots[static_cast<std::size_t>(need.stage)].type;
  const auto rank = std::find(geometry.types.begin(), geometry.types.end(), type) - geometry.types.begin();
  const int device = geometry.assignment.types[static_cast<std::size_t>(rank)];
  const DeviceType& kind = cluster.device_types[static_cast<std::size_t>(device)];
  return {StageId{need.stage}, kind.name, Bytes(need.needed), Bytes(need.available), kind.group};
}

Error nothing_fits(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space,
                   Judge& judge, std::span<const LayoutOption> options) {
  const Nearest nearest = nearest_to_fit(judge, cluster, options);
  const std::string help = advice(network, cluster, model, space);
  if (!nearest.shortage) {
    const bool is_counted = space.recomputed_layers && *space.recomputed_layers != fewest_layers;
    return infeasible("no partition of network '{}' {}keeps the layers that share a table together{}; {}",
                      printable(network.name),
                      is_counted ? "has the blocks that --recompute-layers counts on each rank and " : "",
                      is_asynchronous(space) ? fmt::format(", as asynchronous schedule '{}' needs it", *space.schedule)
                                             : " or at the two ends",
                      help);
  }
  return infeasible("no layout of network '{}' fits into cluster '{}': the nearest, {}, is {}; {}",
                    printable(network.name), printable(cluster.name), to_string(nearest.layout),
                    why_not(*nearest.shortage), help);
}

Error no_layout(const SearchSpace& space, const LayoutList& listed, int devices) {
  if (!listed.refusal.empty()) return infeasible("{}", listed.refusal);
  if (listed.too_long > 0) {
    return infeasible(
        "every layout has too many actions to schedule: a larger micro-batch, more replicas or a smaller "
        "global batch than {} would help",
        space.global_batch);
  }
  const std::int64_t needed = std::int64_t{space.stages.value_or(1)} * space.replicas.value_or(1);
  return infeasible("{} in {} need {}, but {} can be used", counted(space.stages.value_or(1), "stage"),
                    counted(space.replicas.value_or(1), "replica"), counted(needed, "device"), devices);
}

}  // namespace stagecraft
