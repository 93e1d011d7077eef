#include "planner/device_groups.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <tuple>
#include <utility>

#include "models/error.hpp"
#include "models/recomputed_layers.hpp"
#include "models/text.hpp"
#include "planner/in_parallel.hpp"
#include "planner/layouts.hpp"

namespace stagecraft {
namespace {

constexpr int widest = 64;
// Above, all types get the same width.
constexpr std::size_t most_combinations = 256;
constexpr int contenders = 100;  // of all searches together, where several contend

std::size_t at(int index) { return static_cast<std::size_t>(index); }

DeviceType grouped_type(const DeviceType& type, int width, const Link& link) {
  DeviceType group = type;
  group.name = fmt::format("{}-way {}", width, type.name);
  group.memory *= width;
  group.memory_bandwidth *= width;
  for (FlopsPerSecond& peak : group.peak) peak *= width;
  group.efficiency.half_rate *= width;  // a device's part of a product is as much smaller
  group.price *= width;
  group.group = width;
  group.group_link = link;
  return group;
}

bool is_uniform(const Cluster& cluster, const Node& node) {
  return std::all_of(node.devices.begin(), node.devices.end(),
                     [&](DeviceId id) { return &cluster.type_of(id) == &cluster.type_of(node.devices.front()); });
}

bool divides(std::int64_t divisor, std::int64_t number) { return number % divisor == 0; }

// As StepModel::refuse has it.
bool divides(std::int64_t width, const Transformer& t, std::int64_t sequence) {
  return divides(width, t.heads) && (divides(width, t.kv_heads) || divides(t.kv_heads, width)) &&
         divides(width, t.ffn) && divides(width, t.dense_ffn) && divides(width, sequence);
}

// All nodes of a type must have one local link: the type carries it.
bool same_link(const Cluster& cluster, int type, const Link& link) {
  return std::all_of(cluster.nodes.begin(), cluster.nodes.end(), [&](const Node& node) {
    return cluster.devices[at(node.devices.front().value)].type != type || node.local == link;
  });
}

std::vector<std::vector<int>> combinations(const std::vector<std::vector<int>>& widths) {
  std::vector<std::vector<int>> all{{}};
  for (const std::vector<int>& of_type : widths) {
    std::vector<std::vector<int>> longer;
    for (const std::vector<int>& start : all) {
      for (const int width : of_type) {
        longer.push_back(start);
        longer.back().push_back(width);
      }
    }
    all = std::move(longer);
    if (all.size() > most_combinations) return {};
  }
  return all;
}

std::vector<std::vector<int>> same_widths(const std::vector<std::vector<int>>& widths) {
  std::vector<std::vector<int>> all;
  for (int width = 1; width <= widest; width *= 2) {
    std::vector<int> each;
    for (const std::vector<int>& of_type : widths) {
      each.push_back(*std::prev(std::upper_bound(of_type.begin(), of_type.end(), width)));
    }
    if (all.empty() || all.back() != each) all.push_back(std::move(each));
  }
  return all;
}

// Those that all types can have.
std::vector<std::vector<int>> shared_widths(const std::vector<std::vector<int>>& widths) {
  std::vector<std::vector<int>> all;
  for (const int width : widths.front()) {
    const bool is_shared = std::all_of(widths.begin(), widths.end(), [&](const std::vector<int>& of_type) {
      return std::find(of_type.begin(), of_type.end(), width) != of_type.end();
    });
    if (is_shared) all.emplace_back(widths.size(), width);
  }
  return all;
}

void add(SearchCounts& sum, const SearchCounts& counts) {
  sum.layouts += counts.layouts;
  sum.out_of_memory += counts.out_of_memory;
  sum.outclassed += counts.outclassed;
  sum.partitioned += counts.partitioned;
  sum.simulated += counts.simulated;
}

bool is_infeasible(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return error.kind() == ErrorKind::infeasible;
  } catch (...) {
    return false;
  }
}

// The best plans that several searches find, each plan once: the same whatever the order in which they end.
class Ranking {
 public:
  Ranking(LayoutObjective objective, std::size_t keep) : objective_(objective), keep_(keep) {}

  // May be called from several threads.
  void add(std::size_t search, std::vector<RankedPlan> plans) {
    const std::scoped_lock lock(mutex_);
    for (RankedPlan& plan : plans) {
      Found found{score_of(plan.candidate, objective_), search, std::move(plan)};
      const auto same = std::find_if(best_.begin(), best_.end(), [&](const Found& other) {
        return same_plan(other.plan.candidate, found.plan.candidate);
      });
      if (same != best_.end() && !(found < *same)) continue;
      if (same != best_.end()) best_.erase(same);
      best_.insert(std::upper_bound(best_.begin(), best_.end(), found), std::move(found));
      if (best_.size() > keep_) best_.pop_back();
    }
  }

  bool empty() const { return best_.empty(); }
  std::size_t winner() const { return best_.front().search; }  // REQUIRES: !empty()
  std::vector<RankedPlan> take() {
    std::vector<RankedPlan> plans;
    for (Found& found : best_) plans.push_back(std::move(found.plan));
    return plans;
  }

 private:
  struct Found {
    std::pair<double, double> score;
    std::size_t search;
    RankedPlan plan;
    bool operator<(const Found& other) const { return std::tie(score, search) < std::tie(other.score, other.search); }
  };

  LayoutObjective objective_;
  std::size_t keep_;
  std::mutex mutex_;
  std::vector<Found> best_;
};

// The space, and those of also_sharded and also_fewest that are possible.
std::vector<SearchSpace> spaces_of(const SearchSpace& space, const Network& network, const Cluster& cluster) {
  std::vector<SearchSpace> spaces{space};
  const auto add_changed = [&](const auto& change) {
    for (std::size_t i = 0, count = spaces.size(); i < count; ++i) {
      SearchSpace changed = spaces[i];
      change(changed);
      try {
        check_space(changed, network, cluster);
      } catch (const Error&) {  // with these schedules, batches or devices there are none
        continue;
      }
      spaces.push_back(std::move(changed));
    }
  };
  if (space.also_sharded) add_changed([](SearchSpace& changed) { changed.zero = 1; });
  if (space.also_fewest) add_changed([](SearchSpace& changed) { changed.recomputed_layers = fewest_layers; });
  return spaces;
}

}  // namespace

Cluster with_groups(const Cluster& cluster, std::span<const int> widths) {
  Cluster grouped = cluster;
  grouped.devices.clear();
  for (std::size_t n = 0; n < cluster.nodes.size(); ++n) {
    const Node& node = cluster.nodes[n];
    const int type = cluster.devices[at(node.devices.front().value)].type;
    const int width = widths[at(type)];
    Node& group = grouped.nodes[n];
    group.devices.clear();
    for (std::size_t i = 0; i < node.devices.size(); i += at(width)) {
      group.devices.push_back(DeviceId{static_cast<std::int32_t>(grouped.devices.size())});
      grouped.devices.push_back(cluster.devices[at(node.devices[i].value)]);
    }
    if (width == 1) continue;
    group.local.bandwidth *= width;
    if (group.reduction) *group.reduction *= width;
    group.nics = std::min(node.nics, static_cast<int>(group.devices.size()));
    group.network.bandwidth *= static_cast<double>(node.nics) / group.nics;
    grouped.device_types[at(type)] = grouped_type(cluster.device_types[at(type)], width, node.local);
  }
  for (DeviceType& type : grouped.device_types) {
    const auto is_taken = [&](const DeviceType& other) { return &other != &type && other.name == type.name; };
    while (std::any_of(grouped.device_types.begin(), grouped.device_types.end(), is_taken)) type.name += '\'';
  }
  return grouped;
}

std::vector<std::vector<int>> group_widths(const Cluster& cluster, const Network& network, std::int64_t sequence) {
  std::vector<std::vector<int>> widths(cluster.device_types.size(), {1});
  for (std::size_t type = 0; type < widths.size(); ++type) {
    for (int width = 2; width <= widest && cluster.device_types[type].group == 1; width *= 2) {
      const bool fits = std::all_of(cluster.nodes.begin(), cluster.nodes.end(), [&](const Node& node) {
        const bool has = std::any_of(node.devices.begin(), node.devices.end(),
                                     [&](DeviceId id) { return at(cluster.devices[at(id.value)].type) == type; });
        return !has || (is_uniform(cluster, node) && node.devices.size() % at(width) == 0 &&
                        same_link(cluster, static_cast<int>(type), node.local));
      });
      if (fits && divides(width, *network.transformer, sequence)) widths[type].push_back(width);
    }
  }
  return widths;
}

SearchResult search_groups(const Network& network, const Cluster& cluster, const CostModel& model,
                           const SearchSpace& space, std::optional<int> width) {
  check_space(space, network, cluster);  // of all devices: those of groups are fewer
  std::vector<std::vector<int>> widths = group_widths(cluster, network, space.sequence);
  if (width) {
    for (std::size_t type = 0; type < widths.size(); ++type) {
      if (std::find(widths[type].begin(), widths[type].end(), *width) == widths[type].end()) {
        throw bad_input(
            "--tensor: expected a width that the nodes with device type '{}', the network and its {} tokens divide by: "
            "{}; got {}",
            printable(cluster.device_types[type].name), space.sequence, fmt::join(widths[type], ", "), *width);
      }
      widths[type] = {*width};
    }
  }
  if (space.devices) {
    if (width > *space.devices)
      throw infeasible("--tensor: {} devices split a layer, but --devices allows {}", *width, *space.devices);
    // A type whose groups are too large is not used, whatever its width.
    for (std::vector<int>& of_type : widths) std::erase_if(of_type, [&](int each) { return each > *space.devices; });
  }
  std::vector<std::vector<int>> all = space.same_width ? shared_widths(widths) : combinations(widths);
  const bool limited = all.empty();
  if (limited) all = same_widths(widths);
  const std::vector<SearchSpace> spaces = spaces_of(space, network, cluster);
  std::vector<SearchResult> results(spaces.size() * all.size());  // but for the plans
  std::vector<std::exception_ptr> failures(results.size());
  Ranking ranking(space.objective, static_cast<std::size_t>(std::max(space.contend ? contenders : 1, space.keep)));
  in_parallel(0, results.size(), [&](std::size_t i) {
    try {
      results[i] = search(network, with_groups(cluster, all[i % all.size()]), model, spaces[i / all.size()]);
      ranking.add(i, std::exchange(results[i].ranked, {}));
    } catch (...) {
      failures[i] = std::current_exception();
    }
  });
  std::exception_ptr nothing;
  SearchCounts counts;
  for (std::size_t i = 0; i < results.size(); ++i) {
    add(counts, results[i].counts);
    if (!failures[i]) continue;
    if (!is_infeasible(failures[i])) std::rethrow_exception(failures[i]);
    if (i < all.size()) nothing = failures[i];  // of the widest groups last, which have most memory
  }
  if (ranking.empty()) std::rethrow_exception(nothing);
  SearchResult result = std::move(results[ranking.winner()]);
  result.counts = counts;
  result.ranked = ranking.take();
  if (!space.contend) keep_best(result, space.keep);
  const auto& types = result.best().cluster.device_types;
  if (std::any_of(types.begin(), types.end(), [](const DeviceType& type) { return type.group > 1; })) {
    result.notes.push_back(fmt::format(
        "an n-way device is n of a node that split every layer among them (tensor{} parallelism); its times are those "
        "of all n together, its memory is shown for each of them",
        space.sequence_parallel ? " and sequence" : ""));
  }
  if (limited) {
    result.notes.push_back(fmt::format(
        "more than {} combinations of tensor widths: all device types have the same here", most_combinations));
  }
  return result;
}

}  // namespace stagecraft
