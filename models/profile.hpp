// Measured costs of layers and links on one kind of device: written by the profiler, read by the profiled cost model.
//
// A profile holds single layers and single links, never a whole pipeline: predictions are composed from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/cost/cost.hpp"
#include "models/json_reader.hpp"
#include "models/units.hpp"

namespace stagecraft {

// A median with its spread (10th and 90th percentile).
struct Measured {
  Seconds median, low, high;
  int count = 0;
  bool operator==(const Measured&) const = default;
};

// One layer kind at one micro-batch size.
struct LayerSample {
  std::int64_t microbatch = 1;
  // While it was measured: the mean clock of a GPU, in Hz, and the load that it followed (models/cost/clock.hpp); the
  // clock is zero where nobody knows it.
  double clock = 0, load = 1;
  Measured forward, backward_input, backward_weight;
  Measured recompute;  // repeated forward before the backward; zero for Recompute::none
  // Input and weight gradient as one action, recomputation not counted; absent: takes what they take apart.
  std::optional<Measured> backward;
  // The same of a step's first micro-batch, which replaces gradients that the others add to; absent: as the others.
  std::optional<Measured> first_backward;
  Bytes stash;      // allocated from forward to backward
  Bytes split;      // allocated from the input gradient to the weight gradient, where they are apart
  Bytes workspace;  // largest scratch
  bool operator==(const LayerSample&) const = default;
};

struct LayerProfile {
  std::string kind;  // Layer::kind
  Recompute recompute = Recompute::none;
  int busy_neighbours = 0;  // other slices of the GPU that computed meanwhile
  double rest = 0;          // for how long, in steps, they and the device rested after each step
  std::int64_t parameters = 0;
  Measured optimizer;                // one step over the layer's parameters
  std::vector<LayerSample> samples;  // by ascending micro-batch
  bool beside_forwards = false;      // the neighbours did nothing but forwards
  bool operator==(const LayerProfile&) const = default;
};

struct LinkSample {
  Bytes bytes;
  Measured time;  // from the start of the send to the arrival
  bool operator==(const LinkSample&) const = default;
};

struct LinkProfile {
  // "channel" between threads, "mpi" between processes, "copy" between GPUs; "sum": an all-reduce over two GPUs, or
  // slices of one, where `fit` is the link on which a ring of two takes that long
  std::string kind;
  std::vector<LinkSample> samples;
  Link fit;  // latency and bandwidth by least squares on relative errors: fit_link(samples)
  bool operator==(const LinkProfile&) const = default;
};

struct Profile {
  std::string tool_version, machine, date, network;
  DeviceType device;  // what was measured, with its nominal figures
  int devices = 1;    // of that type in this machine, all busy during the measurements
  std::int64_t sequence = 1;
  DataType precision = DataType::fp32;
  Optimizer optimizer = Optimizer::adamw;
  Seconds action_overhead;  // Overheads of cost.hpp
  Seconds step_overhead;
  int kept_outputs = 0;
  int message_buffers = 0;
  std::vector<LayerProfile> layers;
  std::vector<LinkProfile> links;
  std::vector<std::string> warnings;  // noisy machine, few repetitions
  bool operator==(const Profile&) const = default;
};

// Latency a and bandwidth B that minimise sum ((a + b_i / B - t_i) / t_i)^2 over the samples' medians t_i, with a >= 0.
// Samples of one size give a latency of zero; times that do not grow with the size, a bandwidth that no sample feels.
// REQUIRES: at least one sample; sizes and medians above zero.
Link fit_link(std::span<const LinkSample> samples);

// The cluster with the local link of every node that holds the profile's device type replaced by the measured link of
// this kind, and its all-reduce's bandwidth with that of "sum" where that was measured. Throws bad_input when the
// profile has no such link, naming those that it has.
Cluster with_measured_link(Cluster cluster, const Profile& profile, std::string_view link_kind);

// Micro-batch sizes that every layer was measured at, rising.
std::vector<std::int64_t> measured_microbatches(const Profile& profile);

// Throws bad_input: times below zero or out of order (low <= median <= high), samples that do not ascend, a layer kind,
// recompute mode, number of neighbours, what they did and rest given twice, no layers.
Profile profile_from_json(const JsonValue& value);
Json to_json(const Profile& profile);
Profile load_profile(const std::filesystem::path& path);
void save_profile(const Profile& profile, const std::filesystem::path& path);

}  // namespace stagecraft
