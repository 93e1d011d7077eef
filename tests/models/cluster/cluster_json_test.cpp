#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/cluster/cluster.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

// A GPU server node, two edge nodes, and a node of unlike devices.
constexpr const char* text = R"({
  "name": "lab",
  "source": "a worked example",
  "device_types": {
    "big": {"kind": "gpu", "memory": "80 GiB", "memory_bandwidth": "2 TB/s",
            "peak": {"bf16": "312 TFLOP/s", "fp32": "19.5 TFLOP/s"},
            "efficiency": {"matmul": 0.75, "attention": 1.5, "memory": 0.5, "half_rate": "20 GFLOP", "launch": "10 us"}},
    "core": {"kind": "cpu", "memory": "4 GB", "memory_bandwidth": "10 GB/s", "peak": {"fp32": "50 GFLOP/s"}}
  },
  "nodes": [
    {"name": "server", "devices": [{"type": "big", "count": 4}, {"type": "core"}, {"type": "big"}],
     "local": {"kind": "nvlink", "latency": "2 us", "bandwidth": "300 GB/s"},
     "network": {"latency": "5 us", "bandwidth": "200 Gb/s"}, "nics": 2},
    {"name": "edge", "count": 3, "devices": [{"type": "core"}], "network": {"latency": "1 ms", "bandwidth": "1 Gb/s"}}
  ],
  "fabric": {"nodes_per_leaf": 2, "uplink": {"latency": "1 us", "bandwidth": "50 GB/s"}}
})";

Cluster read(const Json& json) { return cluster_from_json(JsonValue(json, "c.json")); }

// The message for the example with one value changed; the pointer is JSON's ("/nodes/0/count").
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

std::string message_without(const char* pointer, const std::string& field) {
  Json json = Json::parse(text);
  json[Json::json_pointer(pointer)].erase(field);
  try {
    read(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ClusterJson, ReadsUnitsAndExpandsGroups) {
  const Cluster cluster = read(Json::parse(text));
  ASSERT_EQ(cluster.devices.size(), 9u);
  ASSERT_EQ(cluster.nodes.size(), 4u);
  const DeviceType& big = cluster.type_of({0});
  EXPECT_EQ(big.memory, Bytes(80.0 * (1 << 30)));
  EXPECT_EQ(big.peak_of(DataType::bf16), FlopsPerSecond(312e12));
  EXPECT_EQ(big.peak_of(DataType::fp8), FlopsPerSecond(0));
  EXPECT_EQ(big.efficiency, (Efficiency{0.75, 1.5, 0.5, Flops(20e9), Seconds(10 * 1e-6)}));
  EXPECT_EQ(cluster.type_of({4}).name, "core");
  EXPECT_EQ(cluster.type_of({4}).efficiency, Efficiency{});
  EXPECT_EQ(cluster.type_of({5}).name, "big");
  EXPECT_EQ(cluster.nodes[0].network.bandwidth, BytesPerSecond(25e9));
  EXPECT_EQ(cluster.nodes[0].nics, 2);
  EXPECT_EQ(cluster.nodes[1].name, "edge-0");
  EXPECT_EQ(cluster.nodes[3].name, "edge-2");
  EXPECT_EQ(cluster.nodes[1].leaf, 0);
  EXPECT_EQ(cluster.nodes[2].leaf, 1);
  EXPECT_EQ(cluster.leaves, 2);
  EXPECT_EQ(cluster.node_of({8}).name, "edge-2");
}

TEST(ClusterJson, WhatIsWrittenReadsBackEqual) {
  const Cluster cluster = read(Json::parse(text));
  const Json json = to_json(cluster);
  EXPECT_EQ(read(json), cluster);
  EXPECT_EQ(json["nodes"].size(), 2u) << "nodes alike are written as one group";
}

TEST(ClusterJson, LeavesOfUnequalSizeReadBackEqual) {
  Json json = Json::parse(text);
  json["fabric"].erase("nodes_per_leaf");
  json["nodes"][0]["leaf"] = 2;
  json["nodes"][1]["leaf"] = 1;
  const Cluster cluster = read(json);
  EXPECT_EQ(cluster.leaves, 3);
  EXPECT_EQ(cluster.nodes[0].leaf, 2);
  EXPECT_EQ(read(to_json(cluster)), cluster);
}

TEST(ClusterJson, NamesThatLookLikeGroupsReadBackEqual) {
  Cluster cluster = read(Json::parse(text));
  cluster.nodes[0].name = "edge-0-0";
  cluster.nodes[1].name = "x-0";
  cluster.nodes[2].name = "x-1";
  cluster.nodes[3].name = "x-3";
  EXPECT_EQ(read(to_json(cluster)), cluster);
}

TEST(ClusterJson, TheWrittenDescriptionOfThisMachineReadsBackEqual) {
  const Cluster cluster = local_cpu();
  EXPECT_EQ(read(to_json(cluster)), cluster);
}

TEST(ClusterJson, NamesFieldValueAndExpectation) {
  EXPECT_EQ(message("/nodes/0/local/bandwidth", "fast"),
            "c.json: nodes[0].local.bandwidth: expected a rate such as \"900 GB/s\", got \"fast\"");
  EXPECT_THAT(message("/device_types/big/memory", 80), HasSubstr("device_types.big.memory: expected a size"));
  EXPECT_THAT(message("/device_types/big/memory", "0 GiB"), HasSubstr("expected a size above zero"));
  EXPECT_THAT(message("/device_types/big/peak", Json::object()), HasSubstr("at least one data type"));
  EXPECT_THAT(message("/device_types/big/peak/bf61", "1 TFLOP/s"), HasSubstr("unknown field 'bf61' (did you mean"));
  EXPECT_THAT(message("/device_types/big/kind", "tpu"), HasSubstr("expected one of 'cpu', 'gpu', got \"tpu\""));
  EXPECT_THAT(message("/device_types/big/efficiency/matmul", 1.5), HasSubstr("a number from 0 to 1"));
  EXPECT_THAT(message("/device_types/big/efficiency/memory", 0), HasSubstr("a fraction above 0"));
  EXPECT_THAT(message("/device_types/big/efficiency/half_rate", "20 GB"), HasSubstr("an amount such as"));
  EXPECT_THAT(message("/device_types", Json::object()), HasSubstr("at least one device type"));
  EXPECT_THAT(message("/nodes", Json::array()), HasSubstr("at least one node"));
  EXPECT_THAT(message("/nodes/0/devices", Json::array()), HasSubstr("at least one device"));
  EXPECT_THAT(message("/nodes/0/devices/0/type", "bigg"), HasSubstr("(did you mean 'big'?)"));
  EXPECT_THAT(message("/nodes/0/nics", 7), HasSubstr("a whole number from 1 to 6"));
  EXPECT_THAT(message("/nodes/0/network/bandwidth", "0 GB/s"), HasSubstr("a rate above zero"));
  EXPECT_THAT(message("/nodes/1/name", "server"), testing::StrEq("no error")) << "server-0 is not server";
  EXPECT_THAT(message("/nodes/0/name", "edge-1"), HasSubstr("'edge-1' is taken"));
  EXPECT_THAT(message("/nodes/0/leaf", 0), HasSubstr("got both"));
  EXPECT_THAT(message("/nodes/0/locla", 1), HasSubstr("unknown field 'locla' (did you mean 'local'?)"));
  EXPECT_THAT(message("/fabric/nodes_per_leaf", 0), HasSubstr("a whole number from 1"));
  EXPECT_THAT(message_without("/nodes/0", "local"), HasSubstr("missing field 'local'"));
  EXPECT_THAT(message_without("/nodes/1", "network"), HasSubstr("missing field 'network'"));
}

TEST(ClusterJson, ReadsPricesWithTheirUnit) {
  Json json = Json::parse(text);
  json["device_types"]["big"]["price"] = "5.12 USD/h";
  EXPECT_EQ(read(json).device_types[0].price, 5.12);
  EXPECT_EQ(cluster_from_json(JsonValue(to_json(read(json)), "again")), read(json));
  for (const char* wrong : {"5.12", "5.12 EUR/h", "-1 USD/h", "USD/h", "5 USD/h "}) {
    EXPECT_THAT(message("/device_types/big/price", wrong), HasSubstr("expected a price above zero")) << wrong;
  }
}

TEST(ClusterJson, RefusesMoreThanAMillionDevicesBeforeTakingMemory) {
  EXPECT_THAT(message("/nodes/1/count", 1'000'000), HasSubstr("at most 1,000,000 devices"));
  EXPECT_THAT(message("/nodes/1/count", 1e18), HasSubstr("a whole number from 1 to 1000000"));
  EXPECT_THAT(message("/nodes/0/devices/0/count", 1'000'000), HasSubstr("at most 1,000,000 devices"));
}

TEST(ClusterJson, NicsNeedANetwork) {
  Json json = Json::parse(text);
  json["nodes"].erase(1);
  json["nodes"][0].erase("network");
  EXPECT_THROW(read(json), Error);
  json["nodes"][0].erase("nics");
  EXPECT_EQ(read(json).nodes.size(), 1u) << "a single node needs no network";
}

TEST(ClusterJson, ADeviceTypeMayBeAGroup) {
  Json json = Json::parse(text);
  Json& type = json["device_types"].front();
  type["group"] = {{"devices", 4}, {"latency", "2 us"}, {"bandwidth", "300 GB/s"}};
  const Cluster cluster = read(json);
  const auto grouped = std::find_if(cluster.device_types.begin(), cluster.device_types.end(),
                                    [](const DeviceType& each) { return each.group == 4; });
  ASSERT_NE(grouped, cluster.device_types.end());
  EXPECT_EQ(grouped->group_link, (Link{Seconds(2e-6), BytesPerSecond(300e9)}));
  EXPECT_GT(devices_in(cluster), static_cast<int>(cluster.devices.size()));
  EXPECT_EQ(cluster_from_json(JsonValue(to_json(cluster), "again")), cluster);
  const auto complaint = [&] {
    try {
      read(json);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  type["group"]["devices"] = 1;
  EXPECT_THAT(complaint(), HasSubstr("group.devices: expected a whole number from 2 to 1000"));
  type["group"]["devices"] = 2;
  type["kind"] = "gpu";
  type["slice"] = {{"multiprocessors", 32}, {"of", 132}};
  EXPECT_THAT(complaint(), HasSubstr("slices of a GPU form no group"));
}

TEST(ClusterJson, ADeviceTypeAloneReadsBackEqual) {
  const DeviceType type = read(Json::parse(text)).device_types[0];
  const Json json = to_json(type);
  EXPECT_EQ(device_type_from_json(JsonValue(json, "d.json")), type);
}

}  // namespace
}  // namespace stagecraft
