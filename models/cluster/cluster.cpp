#include "models/cluster/cluster.hpp"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "models/presets.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::array<std::pair<std::string_view, DataType>, data_type_count> names{{{"fp32", DataType::fp32},
                                                                                    {"tf32", DataType::tf32},
                                                                                    {"bf16", DataType::bf16},
                                                                                    {"fp16", DataType::fp16},
                                                                                    {"fp8", DataType::fp8}}};
constexpr const char* local_name = "local-cpu";

const Node& node_at(const Cluster& cluster, const Device& device) {
  return cluster.nodes[static_cast<std::size_t>(device.node)];
}

const Device& device_at(const Cluster& cluster, DeviceId device) {
  assert(device.value >= 0 && static_cast<std::size_t>(device.value) < cluster.devices.size());
  return cluster.devices[static_cast<std::size_t>(device.value)];
}

Cluster load_preset(const std::string& name) {
  if (name == local_name) return local_cpu();
  const std::vector<std::string> known = cluster_presets();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    throw bad_input("'{}': no such cluster preset{}; known: {}; a file is given as a path ending in .json",
                    printable(name), did_you_mean(name, known), join(known));
  }
  const std::string path = resolve_preset("clusters", name).string();
  const Json document = read_json(path);
  return cluster_from_json(JsonValue(document, path));
}

// The copies in "dgx-h100:64"; the text after the colon is all digits, without a sign.
int parse_count(const std::string& whole, std::string_view text) {
  int count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || count < 1 || count > 100'000) {
    throw bad_input("'{}': expected a number of copies from 1 to 100000 after the colon, got '{}'", printable(whole),
                    printable(text));
  }
  return count;
}

}  // namespace

std::span<const std::pair<std::string_view, DataType>> data_type_names() { return names; }

std::vector<std::string> precisions_of(const DeviceType& type) {
  std::vector<std::string> known;
  for (const auto& [text, precision] : names) {
    if (type.peak_of(precision) > FlopsPerSecond(0)) known.emplace_back(text);
  }
  return known;
}

std::string_view name(DataType type) { return names[static_cast<std::size_t>(type)].first; }

const DeviceType& Cluster::type_of(DeviceId device) const {
  return device_types[static_cast<std::size_t>(device_at(*this, device).type)];
}

const Node& Cluster::node_of(DeviceId device) const { return node_at(*this, device_at(*this, device)); }

int Cluster::nic_of(DeviceId device) const {
  const Node& node = node_of(device);
  const std::int64_t position = device.value - node.devices.front().value;
  return static_cast<int>(position * node.nics / static_cast<std::int64_t>(node.devices.size()));
}

Link Cluster::path(DeviceId from, DeviceId to) const {
  if (from == to) return {Seconds(0), BytesPerSecond(std::numeric_limits<double>::infinity())};
  const Node& source = node_of(from);
  const Node& target = node_of(to);
  if (&source == &target) return source.local;
  Link path{source.network.latency + target.network.latency,
            std::min(source.network.bandwidth, target.network.bandwidth)};
  if (uplink && source.leaf != target.leaf) {
    path.latency += uplink->latency * 2;
    path.bandwidth = std::min(path.bandwidth, uplink->bandwidth);
  }
  return path;
}

Link Cluster::reduction_path(DeviceId from, DeviceId to) const {
  Link link = path(from, to);
  const Node& node = node_of(from);
  if (from != to && node.reduction && &node == &node_of(to)) link.bandwidth = *node.reduction;
  return link;
}

std::vector<int> gpus_of(const Cluster& cluster) {
  std::vector<int> gpus;
  gpus.reserve(cluster.devices.size());
  int node = -1, used = 0, gpu = -1;  // `used`: multiprocessors of the GPU at hand; 0: it takes no more slices
  for (const Device& device : cluster.devices) {
    const DeviceType& type = cluster.device_types[static_cast<std::size_t>(device.type)];
    const bool fits =
        type.is_slice() && used > 0 && device.node == node && used + type.multiprocessors <= type.gpu_multiprocessors;
    if (!fits) ++gpu, used = 0;
    used = type.is_slice() ? used + type.multiprocessors : 0;
    node = device.node;
    gpus.push_back(gpu);
  }
  return gpus;
}

int devices_in(const Cluster& cluster) {
  int count = 0;
  for (const Device& device : cluster.devices)
    count += cluster.device_types[static_cast<std::size_t>(device.type)].group;
  return count;
}

Cluster repeat(const Cluster& cluster, int count) {
  assert(count > 0);
  if (count == 1) return cluster;
  if (static_cast<std::size_t>(count) > 1'000'000 / cluster.devices.size()) {
    throw bad_input("{} copies of {}: expected at most 1,000,000 devices", count, cluster.name);
  }
  Cluster result{fmt::format("{}:{}", cluster.name, count), cluster.device_types, {}, {}, 1, cluster.uplink};
  result.devices.reserve(cluster.devices.size() * static_cast<std::size_t>(count));
  result.nodes.reserve(cluster.nodes.size() * static_cast<std::size_t>(count));
  for (int copy = 0; copy < count; ++copy) {
    const int first_node = static_cast<int>(result.nodes.size());
    const int first_device = static_cast<int>(result.devices.size());
    for (const Node& original : cluster.nodes) {
      if (original.network.bandwidth == BytesPerSecond(0)) {
        throw bad_input("{} copies of {}: its node '{}' has no network to reach the others", count, cluster.name,
                        original.name);
      }
      Node node = original;
      node.name += fmt::format("-{}", copy);
      if (cluster.uplink) node.leaf += copy * cluster.leaves;
      for (DeviceId& device : node.devices) device.value += first_device;
      result.nodes.push_back(std::move(node));
    }
    for (const Device& device : cluster.devices) result.devices.push_back({device.type, device.node + first_node});
  }
  result.leaves = cluster.uplink ? cluster.leaves * count : cluster.leaves;
  return result;
}

std::vector<std::string> cluster_presets() {
  std::vector<std::string> all = preset_names("clusters");
  all.insert(std::lower_bound(all.begin(), all.end(), local_name), local_name);
  return all;
}

Cluster load_cluster(const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json")) {
    const Json document = read_json(name_or_path);
    return cluster_from_json(JsonValue(document, name_or_path));
  }
  const std::size_t colon = name_or_path.find(':');
  if (colon == std::string::npos) return load_preset(name_or_path);
  const int count = parse_count(name_or_path, std::string_view(name_or_path).substr(colon + 1));
  return with_context(name_or_path, [&] { return repeat(load_preset(name_or_path.substr(0, colon)), count); });
}

bool is_this_machine(std::string_view name) {
  const std::string_view base = name.substr(0, name.find(':'));
  return base == "local-cpu" || base == "local-gpu";
}

}  // namespace stagecraft
