// What a step model needs to know of a machine: a device, the software on it and the levels of its network, with
// constants calibrated on published measurements.
//
// Constants are plain numbers in base units, each with its range in a table (constants.hpp), so that reading, writing
// and fitting know them by the same name. Files and their sources: models/presets/{devices,frameworks,fabrics}.
// Formulas: docs/cost_model.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/cluster/cluster.hpp"

namespace stagecraft {

// One device type and its links to the others of its node.
struct DeviceConstants {
  double matmul = 0.8;        // of peak, large products of 16-bit matrices
  double matmul_depth = 200;  // inner size k at which a product reaches half of that: k / (k + depth)
  double matmul_tile = 128;   // side of the square of results that a multiprocessor computes at a time
  double matmul_waves = 1;    // 1: the last wave of tiles takes as long as a full one; 0: its share of one
  double multiprocessors = 108;
  double attention_forward = 0.6;  // fused kernels, of peak, all s^2 pairs counted
  double attention_backward = 0.5;
  // Rows of queries, those of all heads counted, at which a fused kernel reaches half of that rate: rows / (rows +
  // these). A multiprocessor computes a tile of rows at a time, and those of a causal mask differ in length.
  double attention_forward_rows = 0, attention_backward_rows = 0;
  double attention_unfused = 0.4;  // products of scores and values in a batch, of peak
  double memory = 0.8;             // of memory bandwidth, memory-bound kernels
  double kernel_s = 4e-6;          // shortest kernel
  double fp8_speedup = 1.6;        // of products against 16 bits, conversions included
  double host_bandwidth = 25e9;    // bytes/s to and from host memory, one direction
  // Bytes/s of host memory, a device's share, that an optimizer on the host's cores moves. DeepSpeed's on 128 cores
  // takes much of 2.4 to 3.1 s for 3.1e9 parameters of 2 devices (its pull request 7474): 20 to 30e9 if two thirds.
  double host_memory = 25e9;
  double local_bandwidth = 230e9;  // bytes/s, one direction, what a ring inside a node reaches
  double local_latency_s = 3e-6;   // a step of a ring inside a node
  double local_start_s = 3e-5;     // of a collective
  bool operator==(const DeviceConstants&) const = default;
};

// Of peak, all s^2 pairs counted: fused attention over so many rows of queries.
inline double attention_forward_rate(const DeviceConstants& device, double rows) {
  return device.attention_forward * rows / (rows + device.attention_forward_rows);
}
inline double attention_backward_rate(const DeviceConstants& device, double rows) {
  return device.attention_backward * rows / (rows + device.attention_backward_rows);
}

// The network between nodes.
struct FabricConstants {
  double efficiency = 0.9;       // of the ports' nominal rate
  double rate = 25e9;            // bytes/s a device, nominal, where nothing else is known
  double narrowing = 0;          // collectives over n nodes find n^-narrowing of it
  double latency_s = 1e-5;       // a step of a ring that leaves the node
  double tree_latency_s = 3e-5;  // a level of NCCL's tree over the nodes
  double tree_nodes = 1e6;       // an all-reduce over more of them is a ring, of steps of
  double wide_latency_s = 0;     // this latency
  double start_s = 4e-5;         // of a collective
  bool operator==(const FabricConstants&) const = default;
};

// One training framework: what its code costs beyond the kernels that it must run.
struct FrameworkConstants {
  double dispatch_forward_s = 2e-4;  // host time a block: where kernels are shorter, the device waits for the host
  double dispatch_backward_s = 3e-4;
  double pipelined_dispatch_s = 0;  // more of it a tensor-parallel device, forward, where a pipeline leaves the node
  double elementwise = 1;           // traffic of element-wise operations, relative to one pass over each operand
  double product = 1;               // time of products relative to the device's: layouts, transposes, autocast
  double gradient_bytes = 4;        // an element, in memory
  double reduced_bytes = 4;         // an element, in reductions between replicas
  double bucket_bytes = 1e12;       // of gradients or parameters in one collective between replicas
  // 1: in a pipeline ZeRO 2 and 3 sum whole gradients on the device and reduce them once, after a stage's last
  // micro-batch, and leave weights gathered from a backward to the next forward; 0: ZeRO as it is defined.
  double pipelined_sums = 0;
  double unfused_norm = 1;         // traffic of a norm without a kernel of its own, relative to one pass
  double first_flash = 1;          // time of the first FlashAttention over that of the second
  double eager_scores = 1;         // traffic of operations on the scores one by one, relative to one kernel
  double exposed_gradients = 0.1;  // share of an overlapped reduction that shows all the same
  double exposed_tensor = 0.5;     // of tensor-parallel communication overlapped with products
  double exposed_pipeline = 0.1;   // of messages between stages that overlap
  double collective_start = 1;     // inside a node, relative to the device's: less where graphs start collectives
  double repeated_gathers = 0;     // share that shows of sequence parallelism's second gather of a product's input
  double step_s = 5e-3;            // once a step: loss, gradient norm, scalars, data
  double microbatch_s = 0;         // once a micro-batch: Python between the layers, loss bookkeeping
  double optimizer = 1;            // traffic of the optimizer, relative to each operand once
  double straggling = 0;           // of the step, for each doubling of the nodes
  double logit_bytes = 6;          // of memory an output of the head takes: 16 bits, and in fp32 for the loss
  double logits_sharded = 1;       // 1: each tensor-parallel device has its share of the outputs; 0: all of them
  double gated_kept = 3;      // tensors of its inner width that a gated MLP keeps: gate, up, product (and activation)
  double selective_kept = 1;  // share of a block kept by selective recomputation beside a fused attention
  double reserved_bytes = 2.5e9;  // a device: driver context, communication buffers
  double communicator_bytes = 0;  // more of it for each dimension in use: buffers of its communicators
  double fragmentation = 0.03;    // of the activations
  bool operator==(const FrameworkConstants&) const = default;
};

// Devices that reach each other at one speed: a node, a rack, everything.
struct NetworkLevel {
  double devices = 1;       // together on this level; the outermost holds them all
  double bandwidth = 0;     // bytes/s, a device's share of the ports that lead out of the level below, one direction
  double latency = 0;       // s, a step of a ring
  double tree_latency = 0;  // s, a level of a tree; unused innermost
  double start = 0;         // s, of a collective
  double tree_nodes = 1e6;  // most nodes that a tree spans
  double wide_latency = 0;  // s, a step of an all-reduce's ring over more nodes
  double narrowing = 0;     // of the bandwidth, n^-narrowing is left to a ring over n of the level below
  bool operator==(const NetworkLevel&) const = default;
};

// How far the step model was from published runs on a device: sizes of the errors, in percent.
struct PublishedErrors {
  struct Of {
    int rows = 0;
    double median = 0;
    double nine_in_ten = 0;  // are within
    bool operator==(const Of&) const = default;
  };
  Of step_time, memory;
  bool operator==(const PublishedErrors&) const = default;
};

struct Machine {
  DeviceType device;
  DeviceConstants constants;
  FrameworkConstants framework;
  std::vector<NetworkLevel> levels;  // innermost first; at least one
  // Of predictions for the device, each with the constants of the framework that ran.
  PublishedErrors published = {};
  std::string framework_name = {};
  bool operator==(const Machine&) const = default;
};

// A node of `devices`, and the network between nodes that joins `devices` with `rate` bytes/s a device.
NetworkLevel node_level(const DeviceConstants& constants, double devices, double bandwidth);
NetworkLevel network_level(const FabricConstants& constants, double devices, double rate);

// `members` devices, `stride` apart, `per_node` of them together on the innermost level.
struct GroupShape {
  double members = 1;
  double per_node = 1;
  double stride = 1;
};
GroupShape group_of(const Machine& machine, double stride, double members);
// Of `inner` such groups side by side in steps of `outer`: between them may be what belongs to others.
// REQUIRES: outer.stride >= inner.stride * inner.members.
struct Spread {
  double stride = 1;
  double members = 1;
};
GroupShape group_of(const Machine& machine, const Spread& inner, const Spread& outer);

// Collectives on `bytes` (of the whole vector: what each device begins or ends with), in seconds. v the bytes that pass
// a device, B the bandwidth of the slowest link on the ring, k the steps of latency a: start + (sqrt(k a) +
// sqrt(v/B))^2, a ring or tree that passes a message on in pieces of the best size. An all-reduce takes the better of
// both, beyond FabricConstants::tree_nodes the ring.
double reduce_scatter_time(const Machine& machine, const GroupShape& group, double bytes);
double all_gather_time(const Machine& machine, const GroupShape& group, double bytes);
double all_reduce_time(const Machine& machine, const GroupShape& group, double bytes);
double all_to_all_time(const Machine& machine, const GroupShape& group, double bytes);
// From a device to the one `stride` further. In a chain of `reach` devices some hop crosses all levels below that; the
// others wait for it.
double message_time(const Machine& machine, double stride, double reach, double bytes);

// A product (m, k) x (k, n), `element` bytes an element, seconds: 2 m n k / (peak * matmul * k / (k + depth)) times the
// waves that its tiles take, or its bytes from memory, or the shortest kernel. REQUIRES: m, n, k > 0.
double matmul_time(const Machine& machine, double peak, double m, double n, double k, double element);

// The machine that a cluster is: its first device type and node, the nodes' ports as the outer level. A device that the
// driver calls by a preset's alias ("NVIDIA H200") is that preset's; one without a preset gets its constants from
// DeviceType::efficiency. Without a name the framework is the runtime of this program on the clusters that it describes
// itself ("local-..."), else megatron-core. Throws bad_input for an unknown framework.
Machine machine_of(const Cluster& cluster, std::string framework = "");

// Where the cluster's figures are not those of the preset of clusters with its device, for which the constants were
// fitted: links inside a node (bandwidth by more than a tenth, latency by more than a factor of two) and efficiencies.
// One sentence each, of what the step model does about it; none for devices that are in no such preset, or whose
// constants were not fitted.
std::vector<std::string> unlike_fitted(const Cluster& cluster);

}  // namespace stagecraft
