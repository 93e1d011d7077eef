#include "models/profile.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

namespace stagecraft {
namespace {

using testing::HasSubstr;

constexpr const char* text = R"({
  "tool_version": "0.1.0", "machine": "a laptop", "date": "2024-01-02T03:04:05Z", "network": "demo",
  "device": {"name": "core", "kind": "cpu", "memory": "4 GiB", "memory_bandwidth": "10 GB/s",
             "peak": {"fp32": "50 GFLOP/s"}},
  "devices": 2, "sequence": 128, "precision": "fp32", "optimizer": "adamw",
  "layers": [
    {"kind": "block", "recompute": "none", "parameters": 10,
     "optimizer": {"median_s": 0.5, "low_s": 0.25, "high_s": 0.75, "count": 9},
     "samples": [
       {"microbatch": 1, "forward": {"median_s": 1, "low_s": 1, "high_s": 1, "count": 3},
        "backward_input": {"median_s": 2, "low_s": 1, "high_s": 3, "count": 3},
        "backward_weight": {"median_s": 3, "low_s": 1, "high_s": 3, "count": 3},
        "recompute": {"median_s": 0, "low_s": 0, "high_s": 0, "count": 0},
        "stash_bytes": 4096, "workspace_bytes": 1024},
       {"microbatch": 2, "forward": {"median_s": 2, "low_s": 1, "high_s": 2, "count": 3},
        "backward_input": {"median_s": 4, "low_s": 1, "high_s": 5, "count": 3},
        "backward_weight": {"median_s": 6, "low_s": 1, "high_s": 7, "count": 3},
        "recompute": {"median_s": 0, "low_s": 0, "high_s": 0, "count": 0},
        "stash_bytes": 8192, "workspace_bytes": 2048}]}
  ],
  "links": [{"kind": "channel", "fit": {"latency_s": 1e-6, "bandwidth_bytes_per_s": 5e9},
             "samples": [{"bytes": 1024, "time": {"median_s": 2e-6, "low_s": 1e-6, "high_s": 3e-6, "count": 7}}]}],
  "warnings": ["noisy"]
})";

Profile read(const Json& json) { return profile_from_json(JsonValue(json, "p.json")); }

std::string message(const char* pointer, const Json& value) {
  Json json = Json::parse(text);
  json[Json::json_pointer(pointer)] = value;
  try {
    read(json);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

LinkSample transfer(double bytes, double time) {
  return {Bytes(bytes), {Seconds(time), Seconds(time), Seconds(time), 1}};
}

TEST(Profile, ReadsEveryField) {
  const Profile profile = read(Json::parse(text));
  EXPECT_EQ(profile.machine, "a laptop");
  EXPECT_EQ(profile.device.name, "core");
  EXPECT_EQ(profile.device.peak_of(DataType::fp32), FlopsPerSecond(50e9));
  EXPECT_EQ(profile.devices, 2);
  EXPECT_EQ(profile.sequence, 128);
  ASSERT_EQ(profile.layers.size(), 1u);
  EXPECT_EQ(profile.layers[0].samples[1].backward_weight, (Measured{Seconds(6), Seconds(1), Seconds(7), 3}));
  EXPECT_EQ(profile.layers[0].samples[1].stash, Bytes(8192));
  EXPECT_EQ(profile.links[0].fit.bandwidth, BytesPerSecond(5e9));
  EXPECT_EQ(profile.links[0].samples[0].time.count, 7);
  EXPECT_EQ(profile.warnings, std::vector<std::string>{"noisy"});
}

TEST(Profile, WhatIsWrittenReadsBackEqual) {
  Profile profile = read(Json::parse(text));
  profile.layers[0].samples[0].forward.median = Seconds(1.0 / 3);
  profile.layers[0].samples[0].forward.low = Seconds(0.1);
  profile.layers[0].samples[1].backward = Measured{Seconds(5), Seconds(4), Seconds(6), 2};
  profile.layers[0].samples[1].first_backward = Measured{Seconds(3), Seconds(2), Seconds(4), 1};
  profile.layers[0].samples[1].split = Bytes(512);
  profile.action_overhead = Seconds(1e-5);
  profile.step_overhead = Seconds(1e-4);
  profile.kept_outputs = 1;
  profile.message_buffers = 2;
  profile.layers.push_back(profile.layers[0]);
  profile.layers[1].busy_neighbours = 3;
  profile.layers.push_back(profile.layers[1]);
  profile.layers[2].rest = 0.625;
  profile.layers.push_back(profile.layers[2]);
  profile.layers.back().beside_forwards = true;
  profile.layers[2].samples[0].clock = 1.5e9;
  profile.layers[2].samples[0].load = 0.75;
  EXPECT_EQ(read(to_json(profile)), profile);
  const auto path = std::filesystem::temp_directory_path() / "stagecraft_profile_test.json";
  save_profile(profile, path);
  EXPECT_EQ(load_profile(path), profile);
  std::filesystem::remove(path);
}

TEST(Profile, NamesFieldValueAndExpectation) {
  EXPECT_THAT(message("/layers/0/samples/1/microbatch", 1), HasSubstr("layers[0].samples[1]: microbatch: expected"));
  EXPECT_THAT(message("/layers/0/samples/0/forward/median_s", -1), HasSubstr("layers[0].samples[0].forward.median_s"));
  EXPECT_THAT(message("/layers/0/samples/0/forward/median_s", 5), HasSubstr("expected low_s <= median_s <= high_s"));
  EXPECT_THAT(message("/layers/0/samples/0/stash_bytes", "4 KiB"), HasSubstr("expected a number"));
  EXPECT_THAT(message("/layers/0/samples/0/stash", 1), HasSubstr("unknown field 'stash'"));
  EXPECT_THAT(message("/layers/0/samples", Json::array()), HasSubstr("at least one sample"));
  EXPECT_THAT(message("/layers/0/rest", -1), HasSubstr("layers[0].rest: expected"));
  EXPECT_THAT(message("/layers/0/samples/0/load", 1.5), HasSubstr("layers[0].samples[0].load: expected"));
  EXPECT_THAT(message("/layers/0/samples/0/load", 0), HasSubstr("load: expected a number above zero"));
  EXPECT_THAT(message("/layers/0/samples/0/clock_hz", "fast"), HasSubstr("clock_hz: expected a number"));
  EXPECT_THAT(message("/layers", Json::array()), HasSubstr("at least one layer"));
  EXPECT_THAT(message("/layers/1", Json::parse(text)["layers"][0]), HasSubstr("given twice"));
  EXPECT_THAT(message("/layers/0/recompute", "some"), HasSubstr("expected one of 'none', 'selective', 'full'"));
  EXPECT_THAT(message("/links/0/fit/bandwidth_bytes_per_s", 0), HasSubstr("a number above zero"));
  EXPECT_THAT(message("/device/peak", Json::object()), HasSubstr("device.peak: expected the rate"));
}

TEST(FitLink, RecoversAnExactLine) {
  const Link fit = fit_link(std::vector{transfer(100, 3), transfer(200, 4), transfer(1000, 12)});
  EXPECT_NEAR(fit.latency.value(), 2, 1e-9);
  EXPECT_NEAR(fit.bandwidth.value(), 100, 1e-7);
}

TEST(FitLink, WeighsRelativeErrorsAlike) {
  // The same relative error of 10 % up and down at two sizes each: the fit stays on the line 1 + b / 1.
  const Link fit = fit_link(std::vector{transfer(1, 2 / 0.9), transfer(1, 2 / 1.1), transfer(999'999, 1e6 / 0.9),
                                        transfer(999'999, 1e6 / 1.1)});
  EXPECT_NEAR(fit.latency.value(), 1 / 1.01, 1e-3);
  EXPECT_NEAR(fit.bandwidth.value(), 1.01, 1e-3);
}

TEST(FitLink, NeverGivesANegativeLatency) {
  const Link fit = fit_link(std::vector{transfer(1, 1), transfer(10, 20)});
  EXPECT_EQ(fit.latency, Seconds(0));
  // Without latency: c minimises (c - 1)^2 + (c/2 - 1)^2, so c = 1.2.
  EXPECT_DOUBLE_EQ(fit.bandwidth.value(), 1 / 1.2);
}

TEST(FitLink, OneSizeGivesABandwidthAndConstantTimesALatency) {
  const Link one = fit_link(std::vector{transfer(10, 5), transfer(10, 5)});
  EXPECT_EQ(one, (Link{Seconds(0), BytesPerSecond(2)}));
  const Link constant = fit_link(std::vector{transfer(1, 5), transfer(1000, 5)});
  EXPECT_NEAR(constant.transfer_time(Bytes(1000)) / Seconds(5), 1, 2e-3);
  const Link falling = fit_link(std::vector{transfer(1, 8), transfer(1000, 5)});
  EXPECT_GT(falling.bandwidth, BytesPerSecond(0));
  EXPECT_GT(falling.latency, Seconds(5));
}

TEST(WithMeasuredLink, ReplacesTheLocalLinkOfNodesWithTheDevice) {
  Cluster cluster = local_cpu();
  Profile profile = read(Json::parse(text));
  EXPECT_EQ(with_measured_link(cluster, profile, "channel"), cluster) << "another device type";
  profile.device.name = cluster.device_types[0].name;
  EXPECT_EQ(with_measured_link(cluster, profile, "channel").nodes[0].local, profile.links[0].fit);
  EXPECT_THROW(with_measured_link(cluster, profile, "mpi"), Error);
}

TEST(Profile, KnowsTheMicrobatchesOfAllItsLayers) {
  Profile profile;
  const auto layer = [](const std::vector<std::int64_t>& sizes) {
    LayerProfile measured;
    for (const std::int64_t size : sizes) measured.samples.push_back({.microbatch = size});
    return measured;
  };
  profile.layers = {layer({1, 2, 4}), layer({2, 4, 8})};
  EXPECT_EQ(measured_microbatches(profile), (std::vector<std::int64_t>{2, 4}));
}

}  // namespace
}  // namespace stagecraft
