#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/network/network.hpp"

namespace stagecraft {
namespace {

Network read(const std::string& text) {
  const Json document = parse_json(text, "net.json");
  return network_from_json(JsonValue(document, "net.json"), "net");
}

std::string graph_complaint(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

// Perception of two inputs, a language model, a decision: the branches meet in "language".
const std::string agent = R"({"name": "agent", "layers": [
  {"name": "decision", "parameters": 5, "matmul_flops": {"per_sample": 10},
   "inputs": [{"from": "language", "elements": {"per_sample": 8}}, {"from": "camera", "elements": 100}]},
  {"name": "camera", "kind": "vision", "parameters": 40, "matmul_flops": 1e6, "moved": 7.5,
   "stash": {"elements": 300, "bytes": {"per_sample": 9}}},
  {"name": "tokens", "parameters": 30},
  {"name": "language", "parameters": 90, "tied_parameters": 30, "tied_to": "tokens",
   "matmul_flops": {"per_token": 120}, "attention_flops": {"per_token_pair": 16},
   "stash": {"elements": {"per_token": 50, "per_token_pair": 4}},
   "attention_stash": {"elements": {"per_token_pair": 4}},
   "inputs": [{"from": "camera", "elements": 64}, {"from": "tokens", "elements": {"per_token": 6}}]}
]})";

TEST(HandWrittenGraph, HasItsBranchesAmountsAndTies) {
  const Network network = read(agent);
  EXPECT_EQ(network.name, "agent");
  EXPECT_FALSE(network.transformer);
  ASSERT_EQ(network.graph.layers(), 4U);
  EXPECT_EQ(total_parameters(network.graph), 5 + 40 + 30 + 90 - 30);
  EXPECT_THAT(topological_order(network.graph), testing::ElementsAre(1, 2, 3, 0));
  EXPECT_EQ(network.graph[1].kind, "vision");
  EXPECT_EQ(network.graph[0].kind, "decision");  // the name, for want of a kind
  EXPECT_EQ(network.graph[1].matmul_flops, (Amount{.per_sample = 1e6}));
  EXPECT_EQ(network.graph[1].stash, (StashAmount{{.per_sample = 300}, {.per_sample = 9}}));
  // camera feeds both the language model (64) and the decision (100): it crosses the cut once, as the larger.
  EXPECT_EQ(cut_elements(network.graph, {false, true, true, false}), (Amount{.per_sample = 100, .per_token = 6}));
}

TEST(HandWrittenGraph, IsReadBackAsItWasWritten) {
  const Network network = read(agent);
  EXPECT_EQ(read(to_json(network).dump()), network);
  Network other = network;
  other.graph[2].parameters += 1;
  EXPECT_FALSE(read(to_json(other).dump()) == network);
}

TEST(HandWrittenGraph, RefusesWhatIsWrongAndSaysWhere) {
  EXPECT_EQ(graph_complaint(R"({"layers": []})"), "net.json: layers: expected at least one layer, got an array of 0");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a"}, {"name": "a"}]})"),
            "net.json: layers[1].name: expected a name that no layer above has, got \"a\"");
  EXPECT_EQ(
      graph_complaint(R"({"layers": [{"name": "conv1"}, {"name": "b", "inputs": [{"from": "conv", "elements": 1}]}]})"),
      "net.json: layers[1].inputs[0].from: no layer 'conv' (did you mean 'conv1'?)");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "inputs": [{"from": "a", "elements": 1}]}]})"),
            "net.json: layers[0].inputs[0].from: expected another layer than the one that reads it, got \"a\"");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a"}, {"name": "b", "inputs": [{"from": "a", "elements": 1},
                                                                            {"from": "a", "elements": 1}]}]})"),
            "net.json: layers[1].inputs[1].from: expected each input once, got \"a\"");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "inputs": [{"from": "b", "elements": 1}]},
                                     {"name": "b", "inputs": [{"from": "a", "elements": 1}]}]})"),
            "net.json: layers: layers form a cycle: 'a' -> 'b' -> 'a'");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "matmul_flops": -1}]})"),
            "net.json: layers[0].matmul_flops: expected a number from 0 to 1e+24, got -1");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "moved": {"per_token": 1e300}}]})"),
            "net.json: layers[0].moved.per_token: expected a number from 0 to 1e+24, got 1e+300");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "moved": "12 GB"}]})"),
            "net.json: layers[0].moved: expected a number or an object such as {\"per_token\": 768}, got \"12 GB\"");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 2e18}]})"),
            "net.json: layers[0].parameters: expected a whole number from 0 to 1000000000000000000, got 2e+18");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 900000000000000000},
                                     {"name": "b", "parameters": 900000000000000000}]})"),
            "net.json: layers: expected at most 10^18 parameters in all layers together");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "paramters": 4}]})"),
            "net.json: layers[0]: unknown field 'paramters' (did you mean 'parameters'?)");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "kind": "x", "parameters": 1}, {"name": "b", "kind": "x"}]})"),
            "net.json: layers[1]: expected another kind than 'x', which layer 'a' has at other costs");
  EXPECT_EQ(
      graph_complaint(R"({"layers": [{"name": "a", "stash": {"elements": 1}, "attention_stash": {"elements": 2}}]})"),
      "net.json: layers[0]: attention_stash: expected a part of 'stash', got more than it");
}

TEST(HandWrittenGraph, RefusesTiesWithoutAnOwner) {
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 4, "tied_parameters": 4}]})"),
            "net.json: layers[0]: expected 'tied_parameters' and 'tied_to' together");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 4, "tied_parameters": 5, "tied_to": "a"}]})"),
            "net.json: layers[0].tied_parameters: expected at most the layer's parameters, got 5");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 4, "tied_parameters": 4, "tied_to": "a"}]})"),
            "net.json: layers[0].tied_to: expected another layer, got \"a\"");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 4, "tied_parameters": 4, "tied_to": "b"},
                                     {"name": "b", "parameters": 4, "tied_parameters": 4, "tied_to": "a"}]})"),
            "net.json: layers[0].tied_to: expected a layer that is not tied itself, got \"b\"");
  EXPECT_EQ(graph_complaint(R"({"layers": [{"name": "a", "parameters": 4, "tied_parameters": 4, "tied_to": "b"},
                                     {"name": "b", "parameters": 3}]})"),
            "net.json: layers[0].tied_to: expected a layer with at least 4 parameters, 'b' has 3");
}

TEST(HandWrittenGraph, RefusesTooManyLayersBeforeReadingThem) {
  std::string layers = "0";
  for (int i = 0; i < 100'000; ++i) layers += ",0";
  EXPECT_EQ(graph_complaint("{\"layers\": [" + layers + "]}"),
            "net.json: layers: expected an array of at most 100000, got an array of 100001");
}

}  // namespace
}  // namespace stagecraft
