#include "planner/partition_advice.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <tuple>
#include <utility>

#include "models/error.hpp"
#include "models/text.hpp"
#include "planner/device_groups.hpp"
#include "sim/load.hpp"
#include "sim/plan_trace.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t most_kinds = 8;  // of nodes

struct Property {
  const char* name;
  bool is_rate;  // of devices
  void (*scale)(Cluster&, double factor);
};
constexpr std::array<Property, 7> all_properties{{{"products", true,
                                                   [](Cluster& c, double factor) {
                                                     for (DeviceType& type : c.device_types) {
                                                       for (auto& peak : type.peak) peak *= factor;
                                                     }
                                                   }},
                                                  {"memory bandwidth", true,
                                                   [](Cluster& c, double factor) {
                                                     for (DeviceType& type : c.device_types)
                                                       type.memory_bandwidth *= factor;
                                                   }},
                                                  {"memory", false,
                                                   [](Cluster& c, double factor) {
                                                     for (DeviceType& type : c.device_types) type.memory *= factor;
                                                   }},
                                                  {"local links", false,
                                                   [](Cluster& c, double factor) {
                                                     for (Node& node : c.nodes) {
                                                       node.local.bandwidth *= factor;
                                                       if (node.reduction) *node.reduction *= factor;
                                                     }
                                                   }},
                                                  {"local latency", false,
                                                   [](Cluster& c, double factor) {
                                                     for (Node& node : c.nodes) node.local.latency *= factor;
                                                   }},
                                                  {"network", false,
                                                   [](Cluster& c, double factor) {
                                                     for (Node& node : c.nodes) node.network.bandwidth *= factor;
                                                     if (c.uplink) c.uplink->bandwidth *= factor;
                                                   }},
                                                  {"network latency", false, [](Cluster& c, double factor) {
                                                     for (Node& node : c.nodes) node.network.latency *= factor;
                                                     if (c.uplink) c.uplink->latency *= factor;
                                                   }}}};

std::vector<Property> properties(const Cluster& cluster, bool measured) {
  std::vector<Property> list;
  for (const Property& property : all_properties) {
    const bool has = std::string_view(property.name).starts_with("network") ? cluster.nodes.size() > 1
                     : std::string_view(property.name).starts_with("local")
                         ? cluster.devices.size() > cluster.nodes.size()
                         : !(property.is_rate && measured);
    if (has) list.push_back(property);
  }
  return list;
}

// The best plan's step, where there is a plan.
std::optional<RankedPlan> best_on(const Cluster& cluster, const Replan& replan) {
  try {
    SearchResult found = replan(cluster);
    return std::move(found.ranked.front());
  } catch (const Error& error) {  // too little memory, or devices that do not have the precision
    if (error.kind() != ErrorKind::infeasible && error.kind() != ErrorKind::bad_input) throw;
    return std::nullopt;
  }
}

// The plan priced for its own devices on a changed cluster of the same types; empty: it does not fit.
std::optional<Plan> same_on(const Plan& plan, const Cluster& base, const Cluster& changed, const CostModel& model) {
  std::vector<int> widths;
  for (std::size_t type = 0; type < base.device_types.size(); ++type) {
    widths.push_back(plan.cluster.device_types[type].group / base.device_types[type].group);
  }
  Plan same = plan;
  same.cluster = with_groups(changed, widths);
  price(same, model);
  if (model.heeds_load()) price(same, model, stage_loads(same));
  const std::vector<Bytes> peaks = trace_header(same, "").peak_memory;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(same.ranks()); ++rank) {
    if (peaks[rank] > same.cluster.type_of(same.devices.front()[rank]).memory) return std::nullopt;
  }
  return same;
}

std::vector<double> steps_of(const std::vector<Plan>& plans, bool confirmed) {
  std::vector<double> steps;
  if (confirmed) {
    std::vector<const Plan*> all;
    for (const Plan& plan : plans) all.push_back(&plan);
    for (const Seconds step : simgrid_steps(all)) steps.push_back(step.value());
    return steps;
  }
  for (const Plan& plan : plans) steps.push_back(Timeline(plan.lowered()).makespan(step_costs(plan)).value());
  return steps;
}

std::string plan_text(const Candidate& candidate) {
  return fmt::format("{} on {}", to_string(candidate.layout), candidate.devices);
}

std::string short_text(const Candidate& candidate, const Candidate& base) {
  const Layout& l = candidate.layout;
  if (same_plan(candidate, base)) return "the same";
  const Layout& b = base.layout;
  if (l == b) return candidate.devices == base.devices ? "other layers" : "other devices";
  std::vector<std::string> parts;
  if (std::tie(l.ranks, l.replicas, l.microbatch) != std::tie(b.ranks, b.replicas, b.microbatch)) {
    parts.push_back(fmt::format("P={} R={} b={}", l.ranks, l.replicas, l.microbatch));
  }
  if (l.schedule != b.schedule || l.stages * b.ranks != b.stages * l.ranks) parts.push_back(printable(l.schedule, 24));
  if (l.recompute != b.recompute) parts.push_back(fmt::format("recompute={}", name(l.recompute)));
  return fmt::format("{}", fmt::join(parts, " "));
}

bool are_alike(const Cluster& cluster, const Node& a, const Node& b) {
  const auto same_type = [&](DeviceId x, DeviceId y) { return &cluster.type_of(x) == &cluster.type_of(y); };
  return a.local == b.local && a.network == b.network && a.nics == b.nics && a.reduction == b.reduction &&
         std::equal(a.devices.begin(), a.devices.end(), b.devices.begin(), b.devices.end(), same_type);
}

// Indices of nodes, by kind.
std::vector<std::vector<std::size_t>> kinds_of_nodes(const Cluster& cluster) {
  std::vector<std::vector<std::size_t>> kinds;
  for (std::size_t n = 0; n < cluster.nodes.size(); ++n) {
    const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& known) {
      return are_alike(cluster, cluster.nodes[known.front()], cluster.nodes[n]);
    });
    if (kind == kinds.end()) {
      kinds.push_back({n});
    } else {
      kind->push_back(n);
    }
  }
  return kinds;
}

// Of these nodes, in order, and the types that they have.
Cluster with_nodes(const Cluster& cluster, const std::vector<Node>& nodes, const std::vector<int>& type_of_device) {
  Cluster result = cluster;
  result.nodes = nodes;
  result.devices.clear();
  result.device_types.clear();
  std::vector<int> index(cluster.device_types.size(), -1);
  for (std::size_t n = 0; n < result.nodes.size(); ++n) {
    for (DeviceId& id : result.nodes[n].devices) {
      const auto type = static_cast<std::size_t>(type_of_device[static_cast<std::size_t>(id.value)]);
      if (index[type] < 0) {
        index[type] = static_cast<int>(result.device_types.size());
        result.device_types.push_back(cluster.device_types[type]);
      }
      id = DeviceId{static_cast<std::int32_t>(result.devices.size())};
      result.devices.push_back({index[type], static_cast<int>(n)});
    }
  }
  return result;
}

Cluster without(const Cluster& cluster, const std::vector<std::size_t>& left_out) {
  std::vector<Node> nodes;
  for (std::size_t n = 0; n < cluster.nodes.size(); ++n) {
    if (std::find(left_out.begin(), left_out.end(), n) == left_out.end()) nodes.push_back(cluster.nodes[n]);
  }
  std::vector<int> types;
  for (const Device& device : cluster.devices) types.push_back(device.type);
  return with_nodes(cluster, nodes, types);
}

// Nodes keep their sizes; ports between nodes are as many a device.
Cluster all_like(const Cluster& cluster, const Node& model, int type) {
  std::vector<Node> nodes = cluster.nodes;
  for (Node& node : nodes) {
    node.local_kind = model.local_kind;
    node.local = model.local;
    node.network = model.network;
    node.reduction = model.reduction;
    node.nics = std::max(
        1, static_cast<int>(static_cast<std::size_t>(model.nics) * node.devices.size() / model.devices.size()));
  }
  return with_nodes(cluster, nodes, std::vector<int>(cluster.devices.size(), type));
}

}  // namespace

std::vector<RankTime> rank_times(const Plan& plan) {
  const Trace trace = simulate_timeline(plan);
  std::vector<RankTime> ranks(static_cast<std::size_t>(plan.ranks()));
  for (const TraceEvent& event : trace.events) {
    if (event.replica != 0) continue;
    RankTime& rank = ranks[static_cast<std::size_t>(event.rank.value)];
    const Seconds time = event.end - event.start;
    switch (event.action.kind) {
      case ActionKind::forward:
      case ActionKind::backward:
      case ActionKind::backward_input:
      case ActionKind::backward_weight:
        rank.compute += time;
        break;
      case ActionKind::send_forward:
      case ActionKind::send_backward:
        rank.messages += time;
        break;
      case ActionKind::reduce_grad:
      case ActionKind::reduce_tied:
        rank.reduction += time;
        break;
      case ActionKind::optimizer_step:
        rank.optimizer += time;
        break;
      default:
        break;
    }
  }
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    ranks[rank].device = plan.cluster.type_of(plan.devices.front()[rank]).name;
    ranks[rank].waits = trace.step_times.front() - ranks[rank].compute - ranks[rank].optimizer;
  }
  return ranks;
}

std::vector<WhatIf> what_if(const SearchResult& found, const Cluster& cluster, const CostModel& model, bool measured,
                            const Replan& replan) {
  const RankedPlan& best = found.ranked.front();
  std::vector<WhatIf> result;
  std::vector<Plan> same;
  std::vector<std::size_t> of_what;  // index of each in `result`
  for (const Property& property : properties(cluster, measured)) {
    for (const double factor : {0.5, 0.9, 1.1, 2.0}) {
      Cluster changed = cluster;
      property.scale(changed, factor);
      WhatIf& what = result.emplace_back();
      what.property = property.name;
      what.factor = factor;
      if (auto plan = same_on(best.plan, cluster, changed, model)) {
        same.push_back(std::move(*plan));
        of_what.push_back(result.size() - 1);
      }
      if (!what.planned_anew()) continue;
      if (const auto anew = best_on(changed, replan)) {
        what.best = step_of(anew->candidate).value();
        what.plan = plan_text(anew->candidate);
        what.as = short_text(anew->candidate, best.candidate);
      }
    }
  }
  const std::vector<double> steps = steps_of(same, best.candidate.simgrid.has_value());
  for (std::size_t i = 0; i < steps.size(); ++i) result[of_what[i]].same = steps[i];
  return result;
}

std::vector<ChangedCluster> other_nodes(const Cluster& cluster, DataType precision) {
  const auto kinds = kinds_of_nodes(cluster);
  std::vector<ChangedCluster> changed;
  if (kinds.size() < 2 || kinds.size() > most_kinds) return changed;
  for (const auto& kind : kinds) {
    const std::string name = printable(cluster.nodes[kind.front()].name, 24);
    changed.push_back({kind.size() == 1 ? fmt::format("without node '{}'", name)
                                        : fmt::format("without the {} nodes like '{}'", kind.size(), name),
                       without(cluster, kind)});
  }
  const auto rate = [&](DeviceId device) {
    const DeviceType& type = cluster.type_of(device);
    return type.peak_of(precision) * type.efficiency.matmul / type.group;
  };
  DeviceId fastest{0};
  for (const Node& node : cluster.nodes) {
    for (const DeviceId device : node.devices) {
      if (rate(device) > rate(fastest)) fastest = device;
    }
  }
  const Node& model = cluster.node_of(fastest);
  Cluster alike = all_like(cluster, model, cluster.devices[static_cast<std::size_t>(fastest.value)].type);
  if (alike != cluster) changed.push_back({fmt::format("all nodes like '{}'", printable(model.name, 24)), alike});
  return changed;
}

std::vector<OtherCluster> what_if_nodes(const SearchResult& found, const Cluster& cluster, const Replan& replan) {
  std::vector<OtherCluster> result;
  for (const ChangedCluster& changed : other_nodes(cluster, found.best().precision)) {
    OtherCluster& other = result.emplace_back();
    other.change = changed.change;
    other.devices = devices_in(changed.cluster);
    if (const auto anew = best_on(changed.cluster, replan)) {
      other.step = step_of(anew->candidate).value();
      other.used = anew->candidate.devices_used;
      other.price = anew->candidate.price;
      other.plan = plan_text(anew->candidate);
      other.as = short_text(anew->candidate, found.ranked.front().candidate);
    }
  }
  return result;
}

}  // namespace stagecraft
