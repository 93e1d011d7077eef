// The machines: device types, nodes, links and the fabric between nodes.
//
// A cluster is a list of nodes. Devices of one node reach each other through the node's local link (NVLink, NVSwitch,
// PCIe, shared memory); devices of different nodes through their network ports (NIC) and, where the fabric has leaves,
// through the uplinks of their leaves. Local and network traffic are separate planes: they never share bandwidth.
// Every port is full duplex. JSON format: docs/file_formats.md.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/ids.hpp"
#include "models/json_reader.hpp"
#include "models/units.hpp"

namespace stagecraft {

enum class DataType { fp32, tf32, bf16, fp16, fp8 };
inline constexpr std::size_t data_type_count = 5;
std::string_view name(DataType type);
std::span<const std::pair<std::string_view, DataType>> data_type_names();

// One direction of a connection between two ends.
struct Link {
  Seconds latency;
  BytesPerSecond bandwidth;
  Seconds transfer_time(Bytes bytes) const { return latency + bytes / bandwidth; }
  bool operator==(const Link&) const = default;
};

// Fraction of the peak that large operations reach; constants with their sources in the preset files.
struct Efficiency {
  double matmul = 0.5;     // dense matrix products, of peak FLOP/s
  double attention = 0.3;  // attention core, of peak FLOP/s
  double memory = 0.8;     // memory-bound operations, of memory bandwidth; inputs and outputs counted once
  // A matrix product with n FLOPs runs at matmul * n / (n + half_rate): small ones are slower.
  Flops half_rate{0};
  Seconds launch{0};  // fixed cost a layer and direction: kernel launches, dispatch
  bool operator==(const Efficiency&) const = default;
};

enum class DeviceKind { cpu, gpu };

struct DeviceType {
  std::string name;
  DeviceKind kind = DeviceKind::gpu;
  Bytes memory;  // usable by one device
  BytesPerSecond memory_bandwidth;
  std::array<FlopsPerSecond, data_type_count> peak{};  // dense, by DataType; zero where unsupported
  Efficiency efficiency;
  // A slice of a GPU (a CUDA green context): `multiprocessors` of the GPU's `gpu_multiprocessors`. Both zero: a device
  // of its own. Slices that follow one another in a node share a GPU until it is full.
  int multiprocessors = 0, gpu_multiprocessors = 0;
  bool is_slice() const { return multiprocessors > 0; }
  double price = 0;  // US dollars an hour of one device; 0: unknown
  // Devices of a node that split every layer among them and count as one: how many, and the link from one to the next.
  // All figures above are of them together.
  int group = 1;
  Link group_link;
  bool operator==(const DeviceType&) const = default;

  FlopsPerSecond peak_of(DataType type) const { return peak[static_cast<std::size_t>(type)]; }
};

// Names of the precisions that a device computes in.
std::vector<std::string> precisions_of(const DeviceType& type);

struct Node {
  std::string name;
  std::vector<DeviceId> devices;
  std::string local_kind;  // "nvlink", "pcie", "shared-memory": for people
  Link local;              // a device's port to the others of its node; the latency is from device to device
  Link network;            // one NIC's port; unused in a cluster of one node
  int nics = 1;            // devices share the NICs evenly, in order
  int leaf = 0;
  // What an all-reduce inside the node gets of the local bandwidth, its additions included; absent: all of it.
  std::optional<BytesPerSecond> reduction;
  bool operator==(const Node&) const = default;
};

struct Device {
  int type = 0;  // index into Cluster::device_types
  int node = 0;  // index into Cluster::nodes
  bool operator==(const Device&) const = default;
};

struct Cluster {
  std::string name;
  std::vector<DeviceType> device_types;
  std::vector<Device> devices;  // node after node
  std::vector<Node> nodes;
  int leaves = 1;
  std::optional<Link> uplink;  // one leaf's port to the spine; absent: the fabric never limits

  bool operator==(const Cluster&) const = default;

  // REQUIRES for all: the devices exist.
  const DeviceType& type_of(DeviceId device) const;
  const Node& node_of(DeviceId device) const;
  // Which of its node's NICs a device uses, 0 .. nics-1: position * nics / devices.
  int nic_of(DeviceId device) const;
  // The path between two devices when nothing else uses it. Within a node: the local link. Between nodes: the latencies
  // of both NICs, and of both leaves' uplinks if the leaves differ, summed; the least of their bandwidths.
  // A device reaches itself in no time.
  Link path(DeviceId from, DeviceId to) const;
  // The same for the messages of an all-reduce.
  Link reduction_path(DeviceId from, DeviceId to) const;
};

// Devices, those of groups counted.
int devices_in(const Cluster& cluster);

// Which GPU each device is, or is a slice of: numbers that count on through the cluster.
std::vector<int> gpus_of(const Cluster& cluster);

// Reads a cluster. Throws bad_input; refuses more than 1,000,000 devices.
Cluster cluster_from_json(const JsonValue& value);
Json to_json(const Cluster& cluster);
// One device type, as in "device_types", with its name as a field of its own.
DeviceType device_type_from_json(const JsonValue& value);
Json to_json(const DeviceType& type);

// A preset's name, or the path of a JSON file (anything with a '/' or ending in ".json").
// "local-cpu" describes the machine that this runs on (cores, memory, nominal peak).
// "dgx-h100:64" is 64 copies of that preset's nodes (see repeat).
Cluster load_cluster(const std::string& name_or_path);
std::vector<std::string> cluster_presets();
Cluster local_cpu();

// `count` copies of the cluster's nodes on one network: names gain "-0", "-1", ... and, where the leaves have uplinks,
// each copy has leaves of its own. Throws bad_input for more than 1,000,000 devices, and for nodes without a network.
// REQUIRES: count > 0.
Cluster repeat(const Cluster& cluster, int count);

// Whether a cluster's name stands for the machine that this program runs on: "local-cpu:4", "local-gpu".
bool is_this_machine(std::string_view name);

}  // namespace stagecraft
