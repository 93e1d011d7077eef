// Measured costs of layers and links on one kind of device: written by the profiler, read by the profiled cost model.
//
// A profile holds single layers and single links, never a whole pipeline: predictions are composed from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
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
};

// One layer kind at one micro-batch size.
struct LayerSample {
  std::int64_t microbatch = 1;
  Measured forward, backward_input, backward_weight;
  Measured recompute;  // repeated forward before the backward; zero for Recompute::none
  Bytes stash;         // allocated from forward to backward
  Bytes workspace;     // largest scratch
};

struct LayerProfile {
  std::string kind;  // Layer::kind
  Recompute recompute = Recompute::none;
  std::int64_t parameters = 0;
  Measured optimizer;                // one step over the layer's parameters
  std::vector<LayerSample> samples;  // by ascending micro-batch
};

struct LinkSample {
  Bytes bytes;
  Measured time;  // from the start of the send to the arrival
};

struct LinkProfile {
  std::string kind;  // "channel" between threads, "mpi" between processes
  std::vector<LinkSample> samples;
  Link fit;  // latency and bandwidth by least squares on relative errors
};

struct Profile {
  std::string tool_version, machine, date, network;
  DeviceType device;  // what was measured, with its nominal figures
  int devices = 1;    // of that type in this machine, all busy during the measurements
  std::int64_t sequence = 1;
  DataType precision = DataType::fp32;
  Optimizer optimizer = Optimizer::adamw;
  std::vector<LayerProfile> layers;
  std::vector<LinkProfile> links;
  std::vector<std::string> warnings;  // noisy machine, few repetitions
};

Profile profile_from_json(const JsonValue& value);
Json to_json(const Profile& profile);
Profile load_profile(const std::filesystem::path& path);
void save_profile(const Profile& profile, const std::filesystem::path& path);

}  // namespace stagecraft
