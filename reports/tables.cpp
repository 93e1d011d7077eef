#include "reports/tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "models/cost/memory.hpp"
#include "models/network/layer_graph.hpp"
#include "models/recomputed_layers.hpp"
#include "models/schedule/checker.hpp"
#include "models/text.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t name_width = 24;

// Layers that cost the same.
struct LayerGroup {
  std::string kind;
  std::int64_t count = 0;
  std::int64_t parameters = 0;  // of all of them, owned by them: tables borrowed from another layer count there
  double flops = 0;             // of all of them, forward, one token of the workload's sequence
  double stash = 0;             // bytes of all of them, one sample
};

std::vector<LayerGroup> group_layers(const Network& network, const Workload& workload) {
  Workload one_sample = workload;
  one_sample.microbatch = 1;
  std::vector<LayerGroup> groups;
  std::map<std::string, std::size_t> index;
  for (const LayerId id : topological_order(network.graph)) {
    const Layer& layer = network.graph[id];
    const auto [found, added] = index.emplace(layer.kind, groups.size());
    if (added) groups.push_back({layer.kind});
    LayerGroup& group = groups[found->second];
    ++group.count;
    group.parameters += layer.parameters - (layer.tied_to.empty() ? 0 : layer.tied_parameters);
    group.flops += (layer.matmul_flops.at(1, workload.sequence) + layer.attention_flops.at(1, workload.sequence)) /
                   static_cast<double>(workload.sequence);
    group.stash += stash_bytes(layer, one_sample).value();
  }
  return groups;
}

std::string describe(const Transformer& transformer) {
  std::string text = fmt::format("{}: {}, hidden {}, {}", transformer.family, counted(transformer.layers, "block"),
                                 transformer.hidden, counted(transformer.heads, "head"));
  if (transformer.kv_heads != transformer.heads) text += fmt::format(" ({} for keys and values)", transformer.kv_heads);
  text += fmt::format(" of {}, MLP {}, vocabulary {}, up to {} tokens", transformer.head_size, transformer.ffn,
                      with_thousands(transformer.vocabulary), with_thousands(transformer.max_sequence));
  if (transformer.experts > 0) {
    text += fmt::format(", {}, {} a token", counted(transformer.experts, "expert"), transformer.experts_per_token);
  }
  if (transformer.shared_experts > 0) text += fmt::format(" beside {} shared", transformer.shared_experts);
  if (transformer.dense_layers > 0) {
    text += fmt::format(", the first {} dense with MLP {}", counted(transformer.dense_layers, "block"),
                        transformer.dense_ffn);
  }
  if (const auto& latent = transformer.latent) {
    text += fmt::format(", latent attention of ranks {} and {}, {} of a head rotary, values of {}", latent->query_rank,
                        latent->kv_rank, latent->rope_head_size, latent->value_head_size);
  }
  if (transformer.tied_head) text += ", head tied to the embedding";
  return text;
}

std::string link_text(const Link& link) {
  return fmt::format("{}, {}", to_string(link.bandwidth), to_string(link.latency));
}

std::string rate_or_dash(FlopsPerSecond rate) { return rate.value() > 0 ? to_string(rate) : "-"; }

// "8 x H100-SXM, 2 x A100"
std::string devices_text(const Cluster& cluster, const std::vector<DeviceId>& devices) {
  std::map<int, int> count;
  for (const DeviceId device : devices) ++count[cluster.devices[static_cast<std::size_t>(device.value)].type];
  std::vector<std::string> parts;
  for (const auto& [type, number] : count) {
    parts.push_back(fmt::format("{} x {}", number,
                                printable(cluster.device_types[static_cast<std::size_t>(type)].name, name_width)));
  }
  return join(parts);
}

// Safe to print and at most `limit` characters, for narrow columns.
std::string clipped(std::string_view text, std::size_t limit) {
  const std::string safe = printable(text, 200);
  return safe.size() <= limit ? safe : safe.substr(0, limit - 1) + "~";
}

// "block.3..block.7"
std::string layers_text(const Plan& plan, const LayerRange& range) {
  const auto name = [&](std::int64_t position) {
    return clipped(plan.network.graph[plan.order[static_cast<std::size_t>(position)]].name, 9);
  };
  return range.last - range.first == 1 ? name(range.first) : name(range.first) + ".." + name(range.last - 1);
}

// "tensor 8, sequence parallel, ZeRO 1, overlaps gradients, parameters"
std::string rank_text(const PlanLayout& layout, Recompute recompute) {
  std::vector<std::string> parts, overlapped;
  if (layout.tensor > 1) parts.push_back(fmt::format("tensor {}", layout.tensor));
  if (layout.sequence_parallel) parts.emplace_back("sequence parallel");
  if (layout.context > 1) parts.push_back(fmt::format("context {}", layout.context));
  if (layout.expert > 1) parts.push_back(fmt::format("expert {}", layout.expert));
  if (layout.zero > 0) parts.push_back(fmt::format("ZeRO {}", layout.zero));
  if (recompute != Recompute::none && layout.recomputed_layers != all_layers) {
    if (layout.recomputed_layers == listed_layers) {
      parts.push_back(fmt::format("recomputes {} blocks by rank", fmt::join(layout.recomputed_by_rank, " ")));
    } else {
      parts.push_back(layout.recomputed_layers == fewest_layers
                          ? "recomputes as few blocks as each rank needs"
                          : "recomputes " + counted(layout.recomputed_layers, "block"));
    }
  }
  if (layout.offload_optimizer) parts.emplace_back("optimizer offloaded");
  if (layout.offload_activations) parts.emplace_back("activations offloaded");
  if (layout.overlap_gradients) overlapped.emplace_back("gradients");
  if (layout.overlap_parameters) overlapped.emplace_back("parameters");
  if (layout.overlap_tensor) overlapped.emplace_back("tensor");
  if (layout.overlap_pipeline) overlapped.emplace_back("pipeline");
  if (!overlapped.empty()) parts.push_back("overlaps " + join(overlapped));
  return join(parts);
}

std::vector<std::size_t> ranks_of(const PlanStage& stage) {
  std::vector<std::size_t> ranks{static_cast<std::size_t>(stage.rank.value)};
  if (stage.second_rank) ranks.push_back(static_cast<std::size_t>(stage.second_rank->value));
  return ranks;
}

std::string optional_time(const std::optional<Seconds>& time) { return time ? to_string(*time) : "-"; }

}  // namespace

std::vector<RankMemory> rank_memory(const Plan& plan) {
  std::vector<RankMemory> memory(static_cast<std::size_t>(plan.ranks()));
  const std::vector<int> in_flight = peak_in_flight_by_stage(plan.schedule);
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    for (const std::size_t rank : ranks_of(plan.stages[stage])) {
      memory[rank].needed += plan.stages[stage].cost.peak_memory(in_flight[stage]);
    }
  }
  for (std::size_t rank = 0; rank < memory.size(); ++rank) {
    if (rank < plan.prediction.peak_memory.size()) memory[rank].needed = plan.prediction.peak_memory[rank];
    const DeviceType& type = plan.cluster.type_of(plan.devices[0][rank]);
    memory[rank].needed /= type.group;
    memory[rank].available = type.memory / type.group;
  }
  return memory;
}

std::vector<std::vector<std::string>> stage_rows(const Plan& plan) {
  const auto& types = plan.cluster.device_types;
  const bool grouped = std::any_of(types.begin(), types.end(), [](const DeviceType& type) { return type.group > 1; });
  std::vector<std::vector<std::string>> rows{
      {"stage", "layers", "rank", "device", "forward", "backward", "sends", grouped ? "each mem." : "rank mem.", "of"}};
  const std::vector<RankMemory> memory = rank_memory(plan);
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const PlanStage& stage = plan.stages[i];
    for (const std::size_t rank : ranks_of(stage)) {
      rows.push_back({std::to_string(i), layers_text(plan, stage.layers), std::to_string(rank),
                      printable(plan.cluster.type_of(plan.devices[0][rank]).name, 200), to_string(stage.cost.forward),
                      to_string(stage.cost.backward()), to_string(stage.cost.boundary), to_string(memory[rank].needed),
                      to_string(memory[rank].available)});
    }
  }
  return rows;
}

std::vector<std::pair<std::string, std::string>> plan_facts(const Plan& plan) {
  const Batch& batch = plan.batch;
  std::vector<std::pair<std::string, std::string>> facts;
  facts.emplace_back("network", fmt::format("{}, {} parameters", printable(plan.network.name),
                                            with_thousands(total_parameters(plan.network.graph))));
  facts.emplace_back("cluster", fmt::format("{}, {} of {} used", printable(plan.cluster.name), plan.devices_used(),
                                            counted(devices_in(plan.cluster), "device")));
  facts.emplace_back("layout", fmt::format("{} on {}, {}, schedule {}", counted(std::ssize(plan.stages), "stage"),
                                           counted(plan.ranks(), "rank"), counted(plan.replicas(), "replica"),
                                           printable(plan.schedule.name)));
  if (plan.layout != PlanLayout{}) facts.emplace_back("a rank", rank_text(plan.layout, plan.recompute));
  facts.emplace_back("batch", fmt::format("{} of {} a step: {} of {} a replica", counted(batch.global, "sample"),
                                          counted(batch.sequence, "token"), counted(batch.microbatches, "micro-batch"),
                                          batch.microbatch));
  facts.emplace_back("training", fmt::format("{}, {}, recompute {}{}", name(plan.precision), name(plan.optimizer),
                                             name(plan.recompute), plan.fused_attention ? ", fused attention" : ""));
  facts.emplace_back("costs", !is_priced(plan)              ? "not priced yet"
                              : plan.profile_digest.empty() ? "figures of the devices"
                                                            : "profile " + printable(plan.profile_digest));
  const Prediction& prediction = plan.prediction;
  std::string step = fmt::format("closed form {}, timeline {}, SimGrid {}", optional_time(prediction.closed_form_step),
                                 optional_time(prediction.timeline_step), optional_time(prediction.simgrid_step));
  facts.emplace_back("step time", step);
  const std::optional<Seconds> best = prediction.simgrid_step    ? prediction.simgrid_step
                                      : prediction.timeline_step ? prediction.timeline_step
                                                                 : prediction.closed_form_step;
  if (best && best->value() > 0) {
    const double tokens = static_cast<double>(batch.global) * static_cast<double>(batch.sequence) / best->value();
    facts.emplace_back("expected", fmt::format("{} tokens/s, bubble {:.1f} % (idle/total)",
                                               rounded_with_thousands(tokens), 100 * prediction.bubble));
  }
  return facts;
}

std::string network_table(const Network& network, const Workload& workload) {
  const std::vector<LayerGroup> groups = group_layers(network, workload);
  std::string out = wrap(fmt::format("{}: {} parameters in {}", printable(network.name),
                                     with_thousands(total_parameters(network.graph)),
                                     counted(static_cast<long long>(network.graph.layers()), "layer")));
  if (network.transformer) out += wrap(describe(*network.transformer));
  out += wrap(fmt::format("FLOPs: forward, one token of {}; stash: {}, one sample, recompute {}", workload.sequence,
                          name(workload.precision), name(workload.recompute))) +
         "\n";
  std::vector<std::vector<std::string>> rows{{"kind", "layers", "parameters", "FLOPs/token", "stash/sample"}};
  LayerGroup total{"total"};
  const auto add_row = [&](const LayerGroup& group) {
    rows.push_back({printable(group.kind, name_width), with_thousands(group.count), with_thousands(group.parameters),
                    group.flops > 0 ? to_string(Flops(group.flops)) : "-", to_string(Bytes(group.stash))});
  };
  for (const LayerGroup& group : groups) {
    add_row(group);
    total.count += group.count;
    total.parameters += group.parameters;
    total.flops += group.flops;
    total.stash += group.stash;
  }
  add_row(total);
  return out + format_table(rows);
}

Json network_summary(const Network& network, const Workload& workload) {
  Json json;
  json["name"] = network.name;
  json["parameters"] = total_parameters(network.graph);
  json["layers"] = network.graph.layers();
  json["sequence"] = workload.sequence;
  json["precision"] = name(workload.precision);
  json["recompute"] = name(workload.recompute);
  double flops = 0, stash = 0;
  json["kinds"] = Json::array();
  for (const LayerGroup& group : group_layers(network, workload)) {
    flops += group.flops;
    stash += group.stash;
    json["kinds"].push_back({{"kind", group.kind},
                             {"count", group.count},
                             {"parameters", group.parameters},
                             {"forward_flops_per_token", group.flops},
                             {"stash_bytes_per_sample", group.stash}});
  }
  json["forward_flops_per_token"] = flops;
  json["stash_bytes_per_sample"] = stash;
  return json;
}

std::string cluster_table(const Cluster& cluster) {
  std::string out = wrap(fmt::format("{}: {} in {}", printable(cluster.name),
                                     counted(static_cast<long long>(cluster.devices.size()), "device"),
                                     counted(static_cast<long long>(cluster.nodes.size()), "node"))) +
                    "\n";
  std::vector<int> count(cluster.device_types.size(), 0);
  for (const Device& device : cluster.devices) ++count[static_cast<std::size_t>(device.type)];
  std::vector<std::vector<std::string>> types{
      {"device", "count", "memory", "bandwidth", "fp32", "tf32", "16 bit", "fp8"}};
  for (std::size_t i = 0; i < cluster.device_types.size(); ++i) {
    const DeviceType& type = cluster.device_types[i];
    types.push_back({printable(type.name, 20), with_thousands(count[i]), to_string(type.memory),
                     to_string(type.memory_bandwidth), rate_or_dash(type.peak_of(DataType::fp32)),
                     rate_or_dash(type.peak_of(DataType::tf32)),
                     rate_or_dash(std::max(type.peak_of(DataType::bf16), type.peak_of(DataType::fp16))),
                     rate_or_dash(type.peak_of(DataType::fp8))});
  }
  out += format_table(types) + "\n";

  // Nodes that are alike in everything but name, devices and leaf.
  std::map<std::string, std::pair<int, std::vector<std::string>>> alike;
  std::vector<std::string> order;
  const bool has_network = cluster.nodes.size() > 1;
  for (const Node& node : cluster.nodes) {
    const bool has_local = node.local.bandwidth > BytesPerSecond(0);  // a device alone needs none
    std::vector<std::string> cells{
        printable(devices_text(cluster, node.devices), 36),
        has_local ? fmt::format("{} {}", printable(node.local_kind, 14), link_text(node.local)) : "-",
        has_network ? fmt::format("{} x {}", node.nics, link_text(node.network)) : "-"};
    const auto [found, added] = alike.emplace(join(cells, "\n"), std::make_pair(0, cells));
    if (added) order.push_back(found->first);
    ++found->second.first;
  }
  std::vector<std::vector<std::string>> nodes{{"nodes", "devices", "inside the node", "network ports"}};
  for (const std::string& key : order) {
    std::vector<std::string> row{with_thousands(alike[key].first)};
    row.insert(row.end(), alike[key].second.begin(), alike[key].second.end());
    nodes.push_back(std::move(row));
  }
  std::string table = format_table(nodes);
  if (longest_line(table) > max_columns) {
    // Unlike devices in one node make long lists: one property a line instead.
    table.clear();
    for (std::size_t r = 1; r < nodes.size(); ++r) {
      table += wrap(fmt::format("{} x {}", nodes[r][0], nodes[r][1])) + wrap("  inside the node: " + nodes[r][2]) +
               wrap("  network ports: " + nodes[r][3]);
    }
  }
  out += table;
  if (has_network && cluster.uplink) {
    out += "\n" + wrap(fmt::format("fabric: {} {}, uplink {} each", cluster.leaves,
                                   cluster.leaves == 1 ? "leaf" : "leaves", link_text(*cluster.uplink)));
  } else if (has_network) {
    out += "\nfabric: never limits\n";
  }
  return out;
}

namespace {

// Where it would be too wide, without the ranks if they are numbered as the stages, then with device names cut.
std::string stage_table(const Plan& plan) {
  constexpr std::size_t rank = 2;  // column
  constexpr std::size_t shortest = 14;
  std::vector<std::vector<std::string>> rows = stage_rows(plan);
  const auto excess = [&] {
    const std::size_t columns = longest_line(format_table(rows));
    return columns - std::min(columns, max_columns);
  };
  std::size_t device = 3;
  if (excess() > 0 && std::all_of(rows.begin() + 1, rows.end(), [](const auto& row) { return row[0] == row[rank]; })) {
    for (auto& row : rows) row.erase(row.begin() + rank);
    --device;
  }
  if (const std::size_t too_many = excess(); too_many > 0) {
    std::size_t longest = 0;
    for (const auto& row : rows) longest = std::max(longest, row[device].size());
    for (auto& row : rows) {
      row[device] = clipped(row[device], std::max(shortest, longest - std::min(longest, too_many)));
    }
  }
  return format_table(rows);
}

}  // namespace

std::string plan_table(const Plan& plan) {
  std::string out;
  for (const auto& [what, value] : plan_facts(plan)) out += wrap(fmt::format("{:<10} {}", what, value));
  return out + "\n" + stage_table(plan);
}

std::string times_text(const ComputeSchedule& schedule, const StageTimes& times, double message) {
  const auto has = [&](ActionKind kind) {
    return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), [&](const auto& actions) {
      return std::any_of(actions.begin(), actions.end(), [&](const Action& action) { return action.kind == kind; });
    });
  };
  std::string text = fmt::format("F {:g}", times.forward);
  if (has(ActionKind::backward)) text += fmt::format(", B {:g}", times.backward_input + times.backward_weight);
  if (has(ActionKind::backward_input)) {
    text += fmt::format(", I {:g}, W {:g}", times.backward_input, times.backward_weight);
  }
  return text + (message > 0 ? fmt::format(", messages {:g}", message) : "");
}

std::string schedule_table(const ComputeSchedule& schedule, const StageTimes& times, double message,
                           const ScheduleGridOptions& grid) {
  const std::vector<StageTimes> of_stages(static_cast<std::size_t>(schedule.stages), times);
  const ClockedSchedule clock = clock_schedule(schedule, of_stages, message);
  std::string shape = fmt::format("{}: {} on {}, {}", printable(schedule.name), counted(schedule.stages, "stage"),
                                  counted(static_cast<int>(schedule.ranks.size()), "rank"),
                                  counted(schedule.microbatches / schedule.slices, "micro-batch"));
  if (schedule.slices > 1) shape += fmt::format(" of {} slices, numbered one after the other", schedule.slices);
  if (schedule.forward_only) shape += ", forwards alone";
  if (schedule.updates != WeightUpdates::synchronous) {
    shape += fmt::format(", a step every {}, without flush", counted(schedule.update_group, "micro-batch"));
  }
  std::string out = wrap(shape);
  out += wrap(fmt::format("with {}: {:g} units, bubble {:.1f} % (idle/total), {:.1f} % (zero-bubble span)",
                          times_text(schedule, times, message), clock.makespan, 100 * clock.idle_share(),
                          100 * clock.span_bubble()));
  if (!schedule.forward_only) {
    const auto until_weight = peak_in_flight_by_rank(schedule, KeptUntil::weight_gradient);
    const auto until_input = peak_in_flight_by_rank(schedule, KeptUntil::input_gradient);
    std::string kept = fmt::format("in flight, by rank: {}", fmt::join(until_weight, " "));
    if (until_input != until_weight) kept += fmt::format(" (until I: {})", fmt::join(until_input, " "));
    out += wrap(kept);
  }
  return out + "\n" + format_schedule_grid(schedule, clock, grid);
}

}  // namespace stagecraft
