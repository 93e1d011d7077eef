#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_layers = 100'000;
constexpr std::size_t max_edges = 1'000'000;
constexpr std::int64_t max_parameters = 1'000'000'000'000'000'000;
constexpr double max_amount = 1e24;

using Names = std::unordered_map<std::string, LayerId>;

Amount read_amount(const JsonValue& value) {
  if (value.json().is_number()) return {.per_sample = value.number(0, max_amount)};
  if (!value.json().is_object()) throw value.expected("a number or an object such as {\"per_token\": 768}");
  Amount amount;
  JsonObject object = value.object();
  if (const auto field = object.optional("per_sample")) amount.per_sample = field->number(0, max_amount);
  if (const auto field = object.optional("per_token")) amount.per_token = field->number(0, max_amount);
  if (const auto field = object.optional("per_token_pair")) amount.per_token_pair = field->number(0, max_amount);
  object.finish();
  return amount;
}

Amount optional_amount(JsonObject& object, std::string_view name) {
  const auto field = object.optional(name);
  return field ? read_amount(*field) : Amount{};
}

StashAmount optional_stash(JsonObject& object, std::string_view name) {
  const auto field = object.optional(name);
  if (!field) return {};
  JsonObject stash = field->object();
  const StashAmount amount{.elements = optional_amount(stash, "elements"), .bytes = optional_amount(stash, "bytes")};
  stash.finish();
  return amount;
}

bool at_most(const Amount& part, const Amount& whole) {
  return part.per_sample <= whole.per_sample && part.per_token <= whole.per_token &&
         part.per_token_pair <= whole.per_token_pair;
}

std::string read_name(const JsonValue& value) {
  std::string text = value.string(200);
  if (text.empty()) throw value.expected("a name that is not empty");
  return text;
}

// Everything of a layer but its inputs, which may name layers further down.
Layer read_layer(JsonObject& object) {
  Layer layer;
  layer.name = read_name(object.required("name"));
  const auto kind = object.optional("kind");
  layer.kind = kind ? read_name(*kind) : layer.name;
  if (const auto field = object.optional("parameters")) layer.parameters = field->integer(0, max_parameters);
  const auto tied = object.optional("tied_parameters");
  const auto owner = object.optional("tied_to");
  if (tied.has_value() != owner.has_value()) {
    throw object.value().complain("expected 'tied_parameters' and 'tied_to' together");
  }
  if (tied) {
    layer.tied_parameters = tied->integer(1, max_parameters);
    if (layer.tied_parameters > layer.parameters) throw tied->expected("at most the layer's parameters");
    layer.tied_to = owner->string();
  }
  layer.matmul_flops = optional_amount(object, "matmul_flops");
  layer.attention_flops = optional_amount(object, "attention_flops");
  layer.moved = optional_amount(object, "moved");
  layer.stash = optional_stash(object, "stash");
  layer.attention_stash = optional_stash(object, "attention_stash");
  layer.input = optional_amount(object, "recompute_input");
  if (!at_most(layer.attention_stash.elements, layer.stash.elements) ||
      !at_most(layer.attention_stash.bytes, layer.stash.bytes)) {
    throw object.value().complain("attention_stash: expected a part of 'stash', got more than it");
  }
  return layer;
}

LayerId find_layer(const Names& names, const JsonValue& value) {
  const auto found = names.find(value.string());
  if (found != names.end()) return found->second;
  std::vector<std::string> known;
  known.reserve(names.size());
  for (const auto& [name, layer] : names) known.push_back(name);
  std::sort(known.begin(), known.end());  // so that the nearest among equals is always the same
  throw value.complain(fmt::format("no layer '{}'{}", printable(value.string()), did_you_mean(value.string(), known)));
}

// A layer that owns what others are tied to must hold it itself.
void check_tie(const LayerGraph& graph, const Names& names, LayerId layer, JsonObject& object) {
  if (graph[layer].tied_to.empty()) return;
  const JsonValue value = object.required("tied_to");
  const Layer& owner = graph[find_layer(names, value)];
  if (owner.name == graph[layer].name) throw value.expected("another layer");
  if (!owner.tied_to.empty()) throw value.expected("a layer that is not tied itself");
  if (owner.parameters < graph[layer].tied_parameters) {
    throw value.complain(fmt::format("expected a layer with at least {} parameters, '{}' has {}",
                                     graph[layer].tied_parameters, printable(owner.name), owner.parameters));
  }
}

void add_inputs(LayerGraph& graph, const Names& names, LayerId layer, JsonObject& object) {
  const auto inputs = object.optional("inputs");
  if (!inputs) return;
  std::unordered_set<LayerId> seen;
  for (const JsonValue& input : inputs->array(max_layers)) {
    JsonObject edge = input.object();
    const JsonValue from = edge.required("from");
    const LayerId producer = find_layer(names, from);
    if (producer == layer) throw from.expected("another layer than the one that reads it");
    if (!seen.insert(producer).second) throw from.expected("each input once");
    if (num_edges(graph) == max_edges)
      throw input.complain(fmt::format("expected at most {} inputs in all", max_edges));
    add_edge(producer, layer, Tensor{read_amount(edge.required("elements"))}, graph);
    edge.finish();
  }
}

// Layers of one kind share one row of a profile, so they must cost the same; who is tied to whom may differ.
void check_kinds(const LayerGraph& graph, const std::vector<JsonValue>& layers) {
  std::unordered_map<std::string, LayerId> first;
  for (LayerId id = 0; id < num_vertices(graph); ++id) {
    const auto [entry, fresh] = first.try_emplace(graph[id].kind, id);
    if (fresh) continue;
    Layer other = graph[entry->second];
    other.name = graph[id].name;
    other.tied_parameters = graph[id].tied_parameters;
    other.tied_to = graph[id].tied_to;
    if (!(other == graph[id])) {
      throw layers[id].complain(fmt::format("expected another kind than '{}', which layer '{}' has at other costs",
                                            printable(graph[id].kind), printable(graph[entry->second].name)));
    }
  }
}

// Whole numbers as such: 768, not 768.0.
Json number_to_json(double number) {
  if (number < 9e15 && number == static_cast<double>(static_cast<std::int64_t>(number))) {
    return static_cast<std::int64_t>(number);
  }
  return number;
}

Json amount_to_json(const Amount& amount) {
  if (amount.per_token == 0 && amount.per_token_pair == 0) return number_to_json(amount.per_sample);
  Json json = Json::object();
  if (amount.per_sample != 0) json["per_sample"] = number_to_json(amount.per_sample);
  if (amount.per_token != 0) json["per_token"] = number_to_json(amount.per_token);
  if (amount.per_token_pair != 0) json["per_token_pair"] = number_to_json(amount.per_token_pair);
  return json;
}

void put_amount(Json& json, const char* name, const Amount& amount) {
  if (!(amount == Amount{})) json[name] = amount_to_json(amount);
}

void put_stash(Json& json, const char* name, const StashAmount& stash) {
  if (stash == StashAmount{}) return;
  json[name] = Json::object();
  put_amount(json[name], "elements", stash.elements);
  put_amount(json[name], "bytes", stash.bytes);
}

}  // namespace

LayerGraph graph_from_json(const JsonValue& value) {
  const std::vector<JsonValue> layers = value.array(max_layers);
  if (layers.empty()) throw value.expected("at least one layer");
  LayerGraph graph;
  Names names;
  std::vector<JsonObject> objects;
  objects.reserve(layers.size());
  std::int64_t parameters = 0;
  for (const JsonValue& element : layers) {
    JsonObject& object = objects.emplace_back(element.object());
    const Layer layer = read_layer(object);
    if (!names.emplace(layer.name, num_vertices(graph)).second) {
      throw object.required("name").expected("a name that no layer above has");
    }
    parameters += layer.parameters;  // at most twice max_parameters, which an int64 holds
    if (parameters > max_parameters) throw value.complain("expected at most 10^18 parameters in all layers together");
    add_vertex(layer, graph);
  }
  for (LayerId layer = 0; layer < layers.size(); ++layer) {
    check_tie(graph, names, layer, objects[layer]);
    add_inputs(graph, names, layer, objects[layer]);
    objects[layer].finish();
  }
  check_kinds(graph, layers);
  try {
    topological_order(graph);
  } catch (const Error& error) {
    throw value.complain(error.what());
  }
  return graph;
}

Json to_json(const LayerGraph& graph) {
  Json layers = Json::array();
  for (LayerId id = 0; id < num_vertices(graph); ++id) {
    const Layer& layer = graph[id];
    Json json = {{"name", layer.name}, {"kind", layer.kind}, {"parameters", layer.parameters}};
    if (!layer.tied_to.empty()) {
      json["tied_parameters"] = layer.tied_parameters;
      json["tied_to"] = layer.tied_to;
    }
    put_amount(json, "matmul_flops", layer.matmul_flops);
    put_amount(json, "attention_flops", layer.attention_flops);
    put_amount(json, "moved", layer.moved);
    put_stash(json, "stash", layer.stash);
    put_stash(json, "attention_stash", layer.attention_stash);
    put_amount(json, "recompute_input", layer.input);
    for (auto [edge, end] = in_edges(id, graph); edge != end; ++edge) {
      json["inputs"].push_back(
          {{"from", graph[source(*edge, graph)].name}, {"elements", amount_to_json(graph[*edge].elements)}});
    }
    layers.push_back(std::move(json));
  }
  return layers;
}

}  // namespace stagecraft
