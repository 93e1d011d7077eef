// Clusters as JSON: docs/file_formats.md, section "Cluster".
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "models/cluster/cluster.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t max_devices = 1'000'000;
constexpr Seconds max_latency{3600};
constexpr std::array<std::pair<std::string_view, DeviceKind>, 2> kind_names{
    {{"cpu", DeviceKind::cpu}, {"gpu", DeviceKind::gpu}}};

BytesPerSecond positive_rate(const JsonValue& value) {
  const BytesPerSecond rate = value.bytes_per_second();
  if (!(rate > BytesPerSecond(0))) throw value.expected("a rate above zero such as \"900 GB/s\"");
  return rate;
}

// Longer ones are slips, and sums of them would overflow.
Seconds short_time(const JsonValue& value) {
  const Seconds time = value.seconds();
  if (!(time <= max_latency)) throw value.expected("at most an hour, such as \"5 us\"");
  return time;
}

Link read_link(JsonObject& object) {
  return {short_time(object.required("latency")), positive_rate(object.required("bandwidth"))};
}

Link read_link(const JsonValue& value) {
  JsonObject object = value.object();
  const Link link = read_link(object);
  object.finish();
  return link;
}

// "40 GFLOP": an amount, read as the rate of one second.
Flops read_flops(const JsonValue& value) {
  const auto rate = value.json().is_string() ? parse_flops_per_second(value.string() + "/s") : std::nullopt;
  if (!rate) throw value.expected("an amount such as \"40 GFLOP\"");
  return *rate * Seconds(1);
}

double read_fraction(const JsonValue& value, double max) {
  const double fraction = value.number(0, max);
  if (fraction == 0) throw value.expected(fmt::format("a fraction above 0 and at most {}", max));
  return fraction;
}

Efficiency read_efficiency(const JsonValue& value) {
  JsonObject object = value.object();
  Efficiency efficiency;
  if (auto field = object.optional("matmul")) efficiency.matmul = read_fraction(*field, 1);
  // Causal attention is often counted in full though half of it is skipped: above 1 is possible.
  if (auto field = object.optional("attention")) efficiency.attention = read_fraction(*field, 2);
  if (auto field = object.optional("memory")) efficiency.memory = read_fraction(*field, 1);
  if (auto field = object.optional("half_rate")) efficiency.half_rate = read_flops(*field);
  if (auto field = object.optional("launch")) efficiency.launch = short_time(*field);
  object.finish();
  return efficiency;
}

void read_peaks(const JsonValue& value, DeviceType& type) {
  JsonObject object = value.object();
  bool any = false;
  for (const auto& [name, data_type] : data_type_names()) {
    const auto field = object.optional(name);
    if (!field) continue;
    const FlopsPerSecond peak = field->flops_per_second();
    if (!(peak > FlopsPerSecond(0))) throw field->expected("a rate above zero such as \"989 TFLOP/s\"");
    type.peak[static_cast<std::size_t>(data_type)] = peak;
    any = true;
  }
  object.finish();
  if (!any) throw value.complain("expected the rate of at least one data type such as \"bf16\"");
}

// {"multiprocessors": 32, "of": 132}
void read_slice(const JsonValue& value, DeviceType& type) {
  JsonObject object = value.object();
  if (type.kind != DeviceKind::gpu) throw value.complain("only a GPU has slices");
  type.gpu_multiprocessors = static_cast<int>(object.required("of").integer(1, 10'000));
  type.multiprocessors = static_cast<int>(object.required("multiprocessors").integer(1, type.gpu_multiprocessors));
  object.finish();
}

// {"devices": 4, "latency": "5 us", "bandwidth": "349 GB/s"}
void read_group(const JsonValue& value, DeviceType& type) {
  JsonObject object = value.object();
  if (type.is_slice()) throw value.complain("slices of a GPU form no group");
  type.group = static_cast<int>(object.required("devices").integer(2, 1000));
  type.group_link = read_link(object);
  object.finish();
}

// US dollars an hour.
double read_price(const JsonValue& value) {
  const std::string text = value.string();
  constexpr std::string_view unit = " USD/h";
  constexpr double most = 1e12;  // of a group of devices
  double price = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, price);
  const bool ends_in_unit = std::string_view(rest, static_cast<std::size_t>(end - rest)) == unit;
  if (error != std::errc() || !ends_in_unit || !(price > 0) || price > most) {
    throw value.expected("a price above zero and up to 1e12 such as \"4.10 USD/h\"");
  }
  return price;
}

// Without a `name` it stands in the object.
DeviceType read_device_type(const std::optional<std::string>& name, const JsonValue& value) {
  JsonObject object = value.object();
  DeviceType type;
  type.name = name ? *name : object.required("name").string(200);
  type.kind = object.required("kind").one_of<DeviceKind>(kind_names);
  const JsonValue memory = object.required("memory");
  type.memory = memory.bytes();
  if (!(type.memory > Bytes(0))) throw memory.expected("a size above zero such as \"80 GiB\"");
  type.memory_bandwidth = positive_rate(object.required("memory_bandwidth"));
  read_peaks(object.required("peak"), type);
  if (auto field = object.optional("efficiency")) type.efficiency = read_efficiency(*field);
  if (auto field = object.optional("slice")) read_slice(*field, type);
  if (auto field = object.optional("group")) read_group(*field, type);
  if (auto field = object.optional("price")) type.price = read_price(*field);
  object.ignore("source");
  object.finish();
  return type;
}

int find_type(const Cluster& cluster, const JsonValue& value) {
  const std::string wanted = value.string();
  std::vector<std::string> names;
  for (std::size_t i = 0; i < cluster.device_types.size(); ++i) {
    if (cluster.device_types[i].name == wanted) return static_cast<int>(i);
    names.push_back(cluster.device_types[i].name);
  }
  throw value.complain(fmt::format("expected a name in device_types{}, got \"{}\"; known: {}",
                                   did_you_mean(wanted, names), printable(wanted), join(names)));
}

// A line of "nodes": `count` nodes alike.
struct NodeGroup {
  Node node;               // without devices and leaf
  std::vector<int> types;  // of each device
  std::int64_t count = 1;
  std::optional<int> leaf;
  bool has_network = false;
};

void read_devices(const JsonValue& value, const Cluster& cluster, NodeGroup& group) {
  for (const JsonValue& entry : value.array()) {
    JsonObject object = entry.object();
    const int type = find_type(cluster, object.required("type"));
    const auto count = object.optional("count");
    const std::int64_t devices = count ? count->integer(1, max_devices) : 1;
    object.finish();
    if (static_cast<std::int64_t>(group.types.size()) + devices > max_devices) {
      throw entry.complain("a cluster has at most 1,000,000 devices");
    }
    group.types.insert(group.types.end(), static_cast<std::size_t>(devices), type);
  }
  if (group.types.empty()) throw value.expected("at least one device");
}

NodeGroup read_group(const JsonValue& value, const Cluster& cluster) {
  JsonObject object = value.object();
  NodeGroup group;
  const auto name = object.optional("name");
  group.node.name = name ? name->string(200) : "node";
  if (auto field = object.optional("count")) group.count = field->integer(1, max_devices);
  read_devices(object.required("devices"), cluster, group);
  const auto local = group.types.size() > 1 ? std::optional(object.required("local")) : object.optional("local");
  if (local) {
    JsonObject link = local->object();
    group.node.local_kind = link.required("kind").string(200);
    group.node.local = read_link(link);
    if (const auto field = link.optional("reduction")) group.node.reduction = positive_rate(*field);
    link.finish();
  }
  if (auto field = object.optional("network")) {
    group.node.network = read_link(*field);
    group.has_network = true;
  }
  if (auto field = object.optional("nics")) {
    if (!group.has_network) throw field->complain("expected a 'network' beside it");
    group.node.nics = static_cast<int>(field->integer(1, static_cast<std::int64_t>(group.types.size())));
  }
  if (auto field = object.optional("leaf")) group.leaf = static_cast<int>(field->integer(0, max_devices));
  object.finish();
  return group;
}

struct Fabric {
  std::optional<std::int64_t> nodes_per_leaf;
  std::optional<Link> uplink;
};

Fabric read_fabric(const JsonValue& value) {
  JsonObject object = value.object();
  Fabric fabric;
  if (auto field = object.optional("nodes_per_leaf")) fabric.nodes_per_leaf = field->integer(1, max_devices);
  if (auto field = object.optional("uplink")) fabric.uplink = read_link(*field);
  object.finish();
  return fabric;
}

void add_nodes(Cluster& cluster, const NodeGroup& group, const Fabric& fabric) {
  for (std::int64_t i = 0; i < group.count; ++i) {
    Node node = group.node;
    if (group.count > 1) node.name += fmt::format("-{}", i);
    const auto index = static_cast<int>(cluster.nodes.size());
    node.leaf = fabric.nodes_per_leaf ? static_cast<int>(index / *fabric.nodes_per_leaf) : group.leaf.value_or(0);
    cluster.leaves = std::max(cluster.leaves, node.leaf + 1);
    for (const int type : group.types) {
      node.devices.push_back({static_cast<std::int32_t>(cluster.devices.size())});
      cluster.devices.push_back({type, index});
    }
    cluster.nodes.push_back(std::move(node));
  }
}

void read_nodes(const JsonValue& value, const Fabric& fabric, Cluster& cluster) {
  std::vector<NodeGroup> groups;
  const std::vector<JsonValue> entries = value.array();
  std::int64_t nodes = 0;
  std::int64_t devices = 0;
  for (const JsonValue& entry : entries) {
    groups.push_back(read_group(entry, cluster));
    nodes += groups.back().count;
    const auto in_node = static_cast<std::int64_t>(groups.back().types.size());
    if (groups.back().count > (max_devices - devices) / in_node) {
      throw entry.complain("a cluster has at most 1,000,000 devices");
    }
    devices += groups.back().count * in_node;
    if (groups.back().leaf && fabric.nodes_per_leaf) {
      throw entry.complain("expected either a leaf here or fabric.nodes_per_leaf, got both");
    }
  }
  if (groups.empty()) throw value.expected("at least one node");
  std::unordered_set<std::string> taken;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (nodes > 1 && !groups[i].has_network) {
      throw entries[i].complain("missing field 'network': a cluster of several nodes needs it");
    }
    if (groups[i].leaf && *groups[i].leaf >= nodes) {
      throw entries[i].complain(
          fmt::format("leaf: expected a leaf below the number of nodes, {}, got {}", nodes, *groups[i].leaf));
    }
    const std::size_t first = cluster.nodes.size();
    add_nodes(cluster, groups[i], fabric);
    for (std::size_t n = first; n < cluster.nodes.size(); ++n) {
      if (!taken.insert(cluster.nodes[n].name).second) {
        throw entries[i].complain(
            fmt::format("name: expected a name of its own, '{}' is taken", printable(cluster.nodes[n].name)));
      }
    }
  }
}

Json link_json(const Link& link) {
  return {{"latency", to_exact_string(link.latency)}, {"bandwidth", to_exact_string(link.bandwidth)}};
}

Json device_type_json(const DeviceType& type) {
  Json peak = Json::object();
  for (const auto& [name, data_type] : data_type_names()) {
    if (type.peak_of(data_type) > FlopsPerSecond(0)) peak[std::string(name)] = to_exact_string(type.peak_of(data_type));
  }
  const Efficiency& efficiency = type.efficiency;
  Json json{{"kind", kind_names[static_cast<std::size_t>(type.kind)].first},
            {"memory", to_exact_string(type.memory)},
            {"memory_bandwidth", to_exact_string(type.memory_bandwidth)},
            {"peak", std::move(peak)},
            {"efficiency",
             {{"matmul", efficiency.matmul},
              {"attention", efficiency.attention},
              {"memory", efficiency.memory},
              {"half_rate", fmt::format("{} FLOP", efficiency.half_rate.value())},
              {"launch", to_exact_string(efficiency.launch)}}}};
  if (type.price > 0) json["price"] = fmt::format("{} USD/h", type.price);
  if (type.is_slice()) json["slice"] = {{"multiprocessors", type.multiprocessors}, {"of", type.gpu_multiprocessors}};
  if (type.group > 1) {
    json["group"] = link_json(type.group_link);
    json["group"]["devices"] = type.group;
  }
  return json;
}

bool same_devices(const Cluster& cluster, const Node& a, const Node& b) {
  return std::equal(a.devices.begin(), a.devices.end(), b.devices.begin(), b.devices.end(),
                    [&](DeviceId x, DeviceId y) { return &cluster.type_of(x) == &cluster.type_of(y); });
}

// The number of nodes a leaf when all leaves but the last are full, in order: what fabric.nodes_per_leaf can say.
std::optional<std::size_t> nodes_per_leaf(const Cluster& cluster) {
  const std::vector<Node>& nodes = cluster.nodes;
  const auto second = std::find_if(nodes.begin(), nodes.end(), [](const Node& node) { return node.leaf != 0; });
  if (second == nodes.begin() || second == nodes.end()) return std::nullopt;
  const auto size = static_cast<std::size_t>(second - nodes.begin());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].leaf != static_cast<int>(i / size)) return std::nullopt;
  }
  return size;
}

// How many nodes from `first` on read back from one group with a count: alike, and named base-0, base-1, ...
std::size_t group_length(const Cluster& cluster, std::size_t first, bool same_leaf) {
  const Node& head = cluster.nodes[first];
  if (!head.name.ends_with("-0")) return 1;
  const std::string base = head.name.substr(0, head.name.size() - 2);
  std::size_t length = 1;
  for (; first + length < cluster.nodes.size(); ++length) {
    const Node& node = cluster.nodes[first + length];
    if (node.name != fmt::format("{}-{}", base, length) || (same_leaf && node.leaf != head.leaf) ||
        node.nics != head.nics || node.local_kind != head.local_kind || node.local != head.local ||
        node.reduction != head.reduction || node.network != head.network || !same_devices(cluster, head, node)) {
      break;
    }
  }
  return length;
}

Json group_json(const Cluster& cluster, std::size_t first, std::size_t length) {
  const Node& node = cluster.nodes[first];
  Json group;
  group["name"] = length > 1 ? node.name.substr(0, node.name.size() - 2) : node.name;
  if (length > 1) group["count"] = length;
  group["devices"] = Json::array();
  for (std::size_t i = 0; i < node.devices.size();) {
    const DeviceType& type = cluster.type_of(node.devices[i]);
    std::size_t end = i;
    while (end < node.devices.size() && &cluster.type_of(node.devices[end]) == &type) ++end;
    group["devices"].push_back({{"type", type.name}, {"count", end - i}});
    i = end;
  }
  if (node.local.bandwidth > BytesPerSecond(0)) {
    group["local"] = {{"kind", node.local_kind},
                      {"latency", to_exact_string(node.local.latency)},
                      {"bandwidth", to_exact_string(node.local.bandwidth)}};
    if (node.reduction) group["local"]["reduction"] = to_exact_string(*node.reduction);
  }
  if (node.network.bandwidth > BytesPerSecond(0)) {
    group["network"] = link_json(node.network);
    group["nics"] = node.nics;
  }
  return group;
}

}  // namespace

DeviceType device_type_from_json(const JsonValue& value) { return read_device_type(std::nullopt, value); }

Json to_json(const DeviceType& type) {
  Json json;
  json["name"] = type.name;
  json.update(device_type_json(type));
  return json;
}

Cluster cluster_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Cluster cluster;
  cluster.name = object.required("name").string(200);
  object.ignore("source");
  const JsonValue types = object.required("device_types");
  for (const auto& [name, type] : types.object().fields()) {
    if (cluster.device_types.size() == 1000) throw types.expected("at most 1000 device types");
    cluster.device_types.push_back(read_device_type(name, type));
  }
  if (cluster.device_types.empty()) throw types.expected("at least one device type");
  const auto fabric = object.optional("fabric");
  const Fabric read = fabric ? read_fabric(*fabric) : Fabric{};
  cluster.uplink = read.uplink;
  read_nodes(object.required("nodes"), read, cluster);
  object.finish();
  return cluster;
}

Json to_json(const Cluster& cluster) {
  Json json;
  json["name"] = cluster.name;
  for (const DeviceType& type : cluster.device_types) json["device_types"][type.name] = device_type_json(type);
  json["nodes"] = Json::array();
  const auto leaf_size = nodes_per_leaf(cluster);
  for (std::size_t i = 0; i < cluster.nodes.size();) {
    const std::size_t length = group_length(cluster, i, !leaf_size);
    Json group = group_json(cluster, i, length);
    if (!leaf_size && cluster.leaves > 1) group["leaf"] = cluster.nodes[i].leaf;
    json["nodes"].push_back(std::move(group));
    i += length;
  }
  if (leaf_size) json["fabric"]["nodes_per_leaf"] = *leaf_size;
  if (cluster.uplink) json["fabric"]["uplink"] = link_json(*cluster.uplink);
  return json;
}

}  // namespace stagecraft
