#include "models/network/network.hpp"

#include <nlohmann/json.hpp>

#include "models/network/layer_graph.hpp"
#include "models/network/transformer_json.hpp"
#include "models/presets.hpp"

namespace stagecraft {

GraphValue::GraphValue() : GraphValue(LayerGraph{}) {}
GraphValue::GraphValue(LayerGraph graph) : graph_(std::make_unique<LayerGraph>(std::move(graph))) {}
GraphValue::GraphValue(const GraphValue& other) : graph_(std::make_unique<LayerGraph>(*other.graph_)) {}
GraphValue::GraphValue(GraphValue&& other) noexcept = default;
GraphValue& GraphValue::operator=(GraphValue other) noexcept {
  graph_ = std::move(other.graph_);
  return *this;
}
GraphValue::~GraphValue() = default;
const Layer& GraphValue::operator[](LayerId layer) const { return (*graph_)[layer]; }
Layer& GraphValue::operator[](LayerId layer) { return (*graph_)[layer]; }
std::size_t GraphValue::layers() const { return num_vertices(*graph_); }

bool operator==(const Network& a, const Network& b) {
  return a.name == b.name && a.transformer == b.transformer && same_graph(a.graph, b.graph);
}

Network network_from_json(const JsonValue& value, const std::string& default_name) {
  JsonObject object = value.object();
  const bool own = value.json().contains("transformer");
  Network network{.name = default_name, .transformer = {}, .graph = {}};
  if (!own && value.json().contains("model_type")) {
    network.transformer = transformer_from_hugging_face(value);
    network.graph = build_graph(*network.transformer);
    return network;
  }
  if (const auto name = object.optional("name")) {
    network.name = name->string(200);
    if (network.name.empty()) throw name->expected("a name that is not empty");
  }
  object.ignore("description");
  if (own) {
    network.transformer = transformer_from_json(object.required("transformer"));
    network.graph = build_graph(*network.transformer);
  } else if (const auto layers = object.optional("layers")) {
    network.graph = graph_from_json(*layers);
  } else {
    throw value.complain(
        "expected a network: an object with 'transformer', with 'layers', or a Hugging Face config.json with "
        "'model_type'");
  }
  object.finish();
  return network;
}

Json to_json(const Network& network) {
  Json json = {{"name", network.name}};
  if (network.transformer) {
    json["transformer"] = to_json(*network.transformer);
  } else {
    json["layers"] = to_json(network.graph);
  }
  return json;
}

Network load_network(const std::string& name_or_path) {
  const std::filesystem::path path = resolve_preset("networks", name_or_path);
  const Json document = read_json(path);
  // Downloaded configurations are all named config.json, in a folder named after the model.
  const bool by_folder = path.filename() == "config.json" && path.has_parent_path();
  const std::string name = by_folder ? path.parent_path().filename().string() : path.stem().string();
  return network_from_json(JsonValue(document, path.string()), name);
}

std::vector<std::string> network_presets() { return preset_names("networks"); }

}  // namespace stagecraft
