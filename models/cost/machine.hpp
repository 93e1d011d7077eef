// What a step model needs to know of a machine: a device, the software on it and the levels of its network, with
// constants calibrated on published measurements (models/presets/{devices,frameworks,fabrics}; docs/cost_model.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/json_reader.hpp"
#include "models/units.hpp"

namespace stagecraft {

// One device type. Times of kernels:
//   product (m, k) x (k, n)   2 m n k / (peak * matmul * k / (k + matmul_depth) * filled), or its bytes, or `kernel`,
//                             whichever is longest; filled: the share of the last wave of tiles that has work
//   memory-bound              bytes / (bandwidth * memory)
struct DeviceConstants {
  std::string device;         // DeviceType::name
  double matmul = 0.8;        // of peak, large products
  double matmul_depth = 200;  // k at which a product reaches half of that
  double matmul_tile = 128;   // side of the square of results that a multiprocessor computes at a time
  std::int32_t multiprocessors = 108;
  double attention_forward = 0.6;  // fused kernels, of peak, all s^2 pairs counted
  double attention_backward = 0.5;
  double attention_unfused = 0.4;  // products of scores and values in a batch, of peak
  double memory = 0.8;             // of memory bandwidth, memory-bound kernels
  Seconds kernel{3e-6};            // shortest kernel
  double fp8_speedup = 1.6;        // of products, against 16 bits, quantisation included
  bool operator==(const DeviceConstants&) const = default;
};

// One training framework: what its code costs beyond the kernels that it must run.
struct FrameworkConstants {
  std::string framework;
  Seconds dispatch_forward{2e-4};  // host time a block: when kernels are short, the host is the limit
  Seconds dispatch_backward{3e-4};
  double elementwise = 1;          // memory traffic of unfused element-wise operations, relative to one pass each
  double gradient_bytes = 4;       // an element, in reductions between replicas and in memory
  double exposed_gradients = 0.1;  // share of an overlapped reduction that shows all the same
  double exposed_tensor = 0.4;     // of tensor-parallel communication overlapped with products
  double exposed_pipeline = 0.1;   // of messages between stages that overlap
  Seconds step{5e-3};              // once a step: loss, gradient norm, scalars, data
  double straggling = 0;           // of the step, for each doubling of the devices beyond a node
  Bytes reserved{2.5e9};           // a device: driver context, communication buffers
  double fragmentation = 0.03;     // of the activations
  bool operator==(const FrameworkConstants&) const = default;
};

// Devices that reach each other at one speed: a node, a rack, everything.
struct NetworkLevel {
  std::int64_t devices = 1;  // together on this level; the outermost holds them all
  BytesPerSecond bandwidth;  // a device's share of the ports that lead out of the level below, one direction
  BytesPerSecond group;      // the most that one collective moves through one node's ports; innermost: bandwidth
  Seconds latency;           // a message, or a step of a collective
  Seconds collective;        // start of a collective
  bool operator==(const NetworkLevel&) const = default;
};

struct Machine {
  DeviceType device;
  DeviceConstants constants;
  FrameworkConstants framework;
  std::vector<NetworkLevel> levels;  // innermost first; at least one
  bool operator==(const Machine&) const = default;
};

// `members` devices of a group, `per_node` of them on one innermost level, `stride` apart.
struct GroupShape {
  std::int64_t members = 1;
  std::int64_t per_node = 1;
  std::int64_t stride = 1;
};
// Where the members of a dimension lie: `inner` is the product of the dimensions inside it.
GroupShape group_of(const Machine& machine, std::int64_t inner, std::int64_t members);

// Time of collectives on `bytes` (of the whole vector: what each device ends or begins with), and of one message.
double reduce_scatter_time(const Machine& machine, const GroupShape& group, double bytes);
double all_gather_time(const Machine& machine, const GroupShape& group, double bytes);
double all_reduce_time(const Machine& machine, const GroupShape& group, double bytes);
double all_to_all_time(const Machine& machine, const GroupShape& group, double bytes);
double message_time(const Machine& machine, std::int64_t inner, double bytes);

// A product (m, k) x (k, n) with `element` bytes an element. `rate` scales the peak (fp8). REQUIRES: m, n, k > 0.
double matmul_time(const Machine& machine, double peak, double m, double n, double k, double element);

// The calibrated constants of the device type; of a device without a file, from DeviceType::efficiency.
DeviceConstants constants_of(const DeviceType& device);
// A preset of models/presets/frameworks, or a path. Throws bad_input.
FrameworkConstants load_framework(const std::string& name_or_path);

// The cluster's first device type and node, its nodes' NICs as the second level, all with calibrated constants.
// Throws bad_input for an unknown framework.
Machine machine_of(const Cluster& cluster, const std::string& framework = "megatron-core");

}  // namespace stagecraft
