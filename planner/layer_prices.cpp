#include "planner/layer_prices.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "planner/cut_costs.hpp"

namespace stagecraft {
namespace {

double busy(const LayerCost& cost) {
  return (cost.forward + cost.recompute + cost.backward_input + cost.backward_weight - cost.backward_saving).value();
}

Layer nameless(Layer layer) {
  layer.name.clear();
  layer.tied_to.clear();
  return layer;
}

bool same(const LayerCost& a, const LayerCost& b) {
  return a.forward == b.forward && a.recompute == b.recompute && a.backward_input == b.backward_input &&
         a.backward_weight == b.backward_weight && a.backward_saving == b.backward_saving &&
         a.optimizer == b.optimizer && a.weights == b.weights && a.gradients == b.gradients &&
         a.optimizer_state == b.optimizer_state && a.stash == b.stash && a.workspace == b.workspace;
}

bool same(const LayerPrices& a, const LayerPrices& b) {
  for (std::size_t type = 0; type < a.costs.size(); ++type) {
    const auto& costs = a.costs[type];
    if (!std::equal(costs.begin(), costs.end(), b.costs[type].begin(),
                    [](const LayerCost& x, const LayerCost& y) { return same(x, y); })) {
      return false;
    }
  }
  return true;
}

// Of a class, on its fastest type.
double least_busy(const LayerPrices& prices, std::size_t layer_class) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& of_type : prices.costs) least = std::min(least, busy(of_type[layer_class]));
  return least;
}

}  // namespace

LayerClasses classify(const LayerGraph& graph) {
  LayerClasses classes;
  std::unordered_map<std::string, std::vector<int>> by_kind;
  for (LayerId layer = 0; layer < boost::num_vertices(graph); ++layer) {
    const Layer wanted = nameless(graph[layer]);
    std::vector<int>& known = by_kind[wanted.kind];
    const auto match = std::find_if(known.begin(), known.end(), [&](int c) {
      return nameless(graph[classes.representatives[static_cast<std::size_t>(c)]]) == wanted;
    });
    if (match != known.end()) {
      classes.class_of.push_back(*match);
      ++classes.counts[static_cast<std::size_t>(*match)];
      continue;
    }
    known.push_back(static_cast<int>(classes.representatives.size()));
    classes.class_of.push_back(known.back());
    classes.representatives.push_back(layer);
    classes.counts.push_back(1);
  }
  return classes;
}

PriceList::PriceList(const LayerGraph& graph, const Cluster& cluster, const CostModel& model, Workload base)
    : graph_(graph),
      cluster_(cluster),
      model_(model),
      base_(base),
      classes_(classify(graph)),
      ties_(shared_tables(graph)) {
  std::vector<bool> present(cluster.device_types.size(), false);
  for (const Device& device : cluster.devices) present[static_cast<std::size_t>(device.type)] = true;
  std::optional<Error> refusal;
  for (std::size_t type = 0; type < present.size(); ++type) {
    if (!present[type]) continue;
    try {
      for (const LayerId layer : classes_.representatives) {
        model.layer_cost(graph[layer], base, cluster.device_types[type]);
      }
      types_.push_back(static_cast<int>(type));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::bad_input) throw;
      if (!refusal) refusal = error;
      notes_.push_back(
          fmt::format("devices of type {} are not used: {}", cluster.device_types[type].name, error.what()));
    }
  }
  if (types_.empty()) throw refusal.value_or(bad_input("cluster '{}' has no devices", cluster.name));
}

const LayerPrices& PriceList::at(std::int64_t microbatch, std::int64_t microbatches, Recompute recompute, int sharers) {
  if (!model_.heeds_microbatches()) microbatches = 0;
  const auto [entry, is_new] = prices_.try_emplace({microbatch, microbatches, recompute, sharers});
  LayerPrices& prices = entry->second;
  if (!is_new) return prices;
  prices.workload = base_;
  prices.workload.microbatch = microbatch;
  prices.workload.microbatches = microbatches;
  prices.workload.recompute = recompute;
  for (const int type : types_) {
    const DeviceType& device = cluster_.device_types[static_cast<std::size_t>(type)];
    const auto price = [&](const Workload& workload) {
      std::vector<LayerCost> costs;
      for (const LayerId layer : classes_.representatives) {
        costs.push_back(model_.layer_cost(graph_[layer], workload, device));
        if (sharers > 1) shard_optimizer(costs.back(), sharers);
      }
      return costs;
    };
    prices.costs.push_back(price(prices.workload));
    auto& beside = prices.beside.emplace_back();
    Workload workload = prices.workload;
    for (int busy = 0; device.is_slice() && busy <= most_neighbours(device); ++busy) {
      workload.busy_neighbours = busy;
      beside.push_back(price(workload));
    }
  }
  prices.slowdown.assign(types_.size(), std::numeric_limits<double>::infinity());
  for (std::size_t c = 0; c < classes_.counts.size(); ++c) {
    const auto count = static_cast<double>(classes_.counts[c]);
    const LayerCost& cost = prices.costs.front()[c];
    prices.latency += count * least_busy(prices, c);
    double forward = std::numeric_limits<double>::infinity();
    for (const auto& of_type : prices.costs) forward = std::min(forward, of_type[c].forward.value());
    prices.forward += count * forward;
    if (const double least = least_busy(prices, c); least > 0) {
      for (std::size_t type = 0; type < types_.size(); ++type) {
        prices.slowdown[type] = std::min(prices.slowdown[type], busy(prices.costs[type][c]) / least);
      }
    }
    prices.resident += count * (cost.weights + cost.gradients + cost.optimizer_state).value();
    prices.reduced += count * cost.reduced_gradients().value();
    prices.stash += count * cost.stash.value();
  }
  for (const CutGraph::Tie& tie : ties_) {  // one stage may hold both
    const LayerCost& cost = prices.costs.front()[static_cast<std::size_t>(classes_.class_of[tie.user])];
    const double share = tied_share(graph_[tie.user]);
    prices.resident -= share * (cost.weights + cost.gradients + cost.optimizer_state).value();
    prices.reduced -= share * cost.reduced_gradients().value();
  }
  if (!(prices.latency > 0)) prices.slowdown.assign(types_.size(), 1);  // no class says
  return prices;
}

bool PriceList::repeats(std::int64_t microbatch, Recompute recompute) {
  const auto [entry, is_new] = repeats_.try_emplace({microbatch, recompute}, false);
  if (is_new) {
    for (const auto& [name, lighter] : recompute_names()) {
      if (lighter < recompute && model_.knows(lighter) &&
          same(at(microbatch, 0, lighter), at(microbatch, 0, recompute)))
        entry->second = true;
    }
  }
  return entry->second;
}

std::vector<Overheads> PriceList::overheads() const {
  std::vector<Overheads> overheads;
  for (const int type : types_) {
    overheads.push_back(model_.overheads(cluster_.device_types[static_cast<std::size_t>(type)]));
  }
  return overheads;
}

int PriceList::index_of(int device_type) const {
  const auto found = std::find(types_.begin(), types_.end(), device_type);
  assert(found != types_.end());
  return static_cast<int>(found - types_.begin());
}

double PriceList::least_bottleneck(const LayerPrices& prices, int stages) const {
  double bound = prices.latency / stages;
  for (std::size_t c = 0; c < classes_.counts.size(); ++c) {
    const std::int64_t together = (classes_.counts[c] + stages - 1) / stages;
    bound = std::max(bound, static_cast<double>(together) * least_busy(prices, c));
  }
  return bound;
}

}  // namespace stagecraft
