#include "models/profile.hpp"

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr double max_seconds = 1e9;
constexpr double max_bytes = 1e18;
constexpr std::int64_t max_count = 1'000'000'000;

Seconds read_seconds(const JsonValue& value) { return Seconds(value.number(0, max_seconds)); }
Bytes read_bytes(const JsonValue& value) { return Bytes(value.number(0, max_bytes)); }

Measured read_measured(const JsonValue& value) {
  JsonObject object = value.object();
  Measured measured;
  measured.median = read_seconds(object.required("median_s"));
  measured.low = read_seconds(object.required("low_s"));
  measured.high = read_seconds(object.required("high_s"));
  measured.count = static_cast<int>(object.required("count").integer(0, max_count));
  object.finish();
  if (!(measured.low <= measured.median && measured.median <= measured.high)) {
    throw value.complain("expected low_s <= median_s <= high_s");
  }
  return measured;
}

Json measured_json(const Measured& measured) {
  return {{"median_s", measured.median.value()},
          {"low_s", measured.low.value()},
          {"high_s", measured.high.value()},
          {"count", measured.count}};
}

LayerSample read_layer_sample(const JsonValue& value) {
  JsonObject object = value.object();
  LayerSample sample;
  sample.microbatch = object.required("microbatch").integer(1, max_count);
  sample.forward = read_measured(object.required("forward"));
  sample.backward_input = read_measured(object.required("backward_input"));
  sample.backward_weight = read_measured(object.required("backward_weight"));
  sample.recompute = read_measured(object.required("recompute"));
  if (const auto backward = object.optional("backward")) sample.backward = read_measured(*backward);
  if (const auto first = object.optional("first_backward")) sample.first_backward = read_measured(*first);
  sample.stash = read_bytes(object.required("stash_bytes"));
  if (const auto split = object.optional("split_bytes")) sample.split = read_bytes(*split);
  if (const auto clock = object.optional("clock_hz")) sample.clock = clock->number(0, 1e12);
  if (const auto load = object.optional("load")) {
    sample.load = load->number(0, 1);
    if (sample.load == 0) throw load->expected("a number above zero");
  }
  sample.workspace = read_bytes(object.required("workspace_bytes"));
  object.finish();
  return sample;
}

Json layer_sample_json(const LayerSample& sample) {
  Json json{{"microbatch", sample.microbatch},
            {"forward", measured_json(sample.forward)},
            {"backward_input", measured_json(sample.backward_input)},
            {"backward_weight", measured_json(sample.backward_weight)},
            {"recompute", measured_json(sample.recompute)}};
  if (sample.backward) json["backward"] = measured_json(*sample.backward);
  if (sample.first_backward) json["first_backward"] = measured_json(*sample.first_backward);
  if (sample.clock > 0) {
    json["clock_hz"] = sample.clock;
    json["load"] = sample.load;
  }
  json["stash_bytes"] = sample.stash.value();
  json["split_bytes"] = sample.split.value();
  json["workspace_bytes"] = sample.workspace.value();
  return json;
}

LayerProfile read_layer(const JsonValue& value) {
  JsonObject object = value.object();
  LayerProfile layer;
  layer.kind = object.required("kind").string();
  layer.recompute = object.required("recompute").one_of<Recompute>(recompute_names());
  if (const auto busy = object.optional("busy_neighbours")) {
    layer.busy_neighbours = static_cast<int>(busy->integer(0, 1000));
  }
  if (const auto forwards = object.optional("beside_forwards")) layer.beside_forwards = forwards->boolean();
  if (const auto rest = object.optional("rest")) layer.rest = rest->number(0, 1e6);
  layer.parameters = object.required("parameters").integer(0, std::numeric_limits<std::int64_t>::max());
  layer.optimizer = read_measured(object.required("optimizer"));
  const JsonValue samples = object.required("samples");
  for (const JsonValue& entry : samples.array(10'000)) {
    layer.samples.push_back(read_layer_sample(entry));
    if (layer.samples.size() > 1 &&
        layer.samples.back().microbatch <= layer.samples[layer.samples.size() - 2].microbatch) {
      throw entry.complain("microbatch: expected samples by ascending micro-batch");
    }
  }
  object.finish();
  if (layer.samples.empty()) throw samples.expected("at least one sample");
  return layer;
}

Json layer_json(const LayerProfile& layer) {
  Json json{{"kind", layer.kind},
            {"recompute", name(layer.recompute)},
            {"busy_neighbours", layer.busy_neighbours},
            {"parameters", layer.parameters},
            {"optimizer", measured_json(layer.optimizer)},
            {"samples", Json::array()}};
  if (layer.beside_forwards) json["beside_forwards"] = true;
  if (layer.rest > 0) json["rest"] = layer.rest;
  for (const LayerSample& sample : layer.samples) json["samples"].push_back(layer_sample_json(sample));
  return json;
}

LinkProfile read_link(const JsonValue& value) {
  JsonObject object = value.object();
  LinkProfile link;
  link.kind = object.required("kind").string();
  JsonObject fit = object.required("fit").object();
  link.fit.latency = read_seconds(fit.required("latency_s"));
  const JsonValue bandwidth = fit.required("bandwidth_bytes_per_s");
  link.fit.bandwidth = BytesPerSecond(bandwidth.number(0, 1e300));
  if (!(link.fit.bandwidth > BytesPerSecond(0))) throw bandwidth.expected("a number above zero");
  fit.finish();
  for (const JsonValue& entry : object.required("samples").array(10'000)) {
    JsonObject sample = entry.object();
    link.samples.push_back({read_bytes(sample.required("bytes")), read_measured(sample.required("time"))});
    sample.finish();
  }
  object.finish();
  return link;
}

Json link_json(const LinkProfile& link) {
  Json json{{"kind", link.kind},
            {"fit", {{"latency_s", link.fit.latency.value()}, {"bandwidth_bytes_per_s", link.fit.bandwidth.value()}}},
            {"samples", Json::array()}};
  for (const LinkSample& sample : link.samples) {
    json["samples"].push_back({{"bytes", sample.bytes.value()}, {"time", measured_json(sample.time)}});
  }
  return json;
}

void read_layers(const JsonValue& value, std::vector<LayerProfile>& layers) {
  for (const JsonValue& entry : value.array(10'000)) {
    LayerProfile layer = read_layer(entry);
    for (const LayerProfile& other : layers) {
      if (other.kind == layer.kind && other.recompute == layer.recompute &&
          other.busy_neighbours == layer.busy_neighbours && other.beside_forwards == layer.beside_forwards &&
          other.rest == layer.rest) {
        throw entry.complain(fmt::format(
            "kind '{}' with recompute {}, {} busy neighbours{} and a rest of {} is given twice", printable(layer.kind),
            name(layer.recompute), layer.busy_neighbours, layer.beside_forwards ? " doing forwards" : "", layer.rest));
      }
    }
    layers.push_back(std::move(layer));
  }
  if (layers.empty()) throw value.expected("at least one layer");
}

}  // namespace

Link fit_link(std::span<const LinkSample> samples) {
  assert(!samples.empty());
  // Divided by t_i, the errors are linear in latency a and slowness c = 1/B: a x_i + c y_i - 1, x = 1/t, y = b/t.
  double xx = 0, xy = 0, yy = 0, x_sum = 0, y_sum = 0, largest = 0, longest = 0;
  for (const LinkSample& sample : samples) {
    assert(sample.bytes > Bytes(0) && sample.time.median > Seconds(0));
    const double x = 1 / sample.time.median.value();
    const double y = sample.bytes.value() * x;
    xx += x * x, xy += x * y, yy += y * y, x_sum += x, y_sum += y;
    largest = std::max(largest, sample.bytes.value());
    longest = std::max(longest, sample.time.median.value());
  }
  const double determinant = xx * yy - xy * xy;
  double latency = 0;
  double slowness = y_sum / yy;         // the best without latency
  if (determinant > 1e-12 * xx * yy) {  // else all sizes are equal
    const double free_latency = (x_sum * yy - y_sum * xy) / determinant;
    if (free_latency > 0) {
      latency = free_latency;
      slowness = (y_sum * xx - x_sum * xy) / determinant;
    }
  }
  const double least = 1e-3 * longest / largest;
  if (slowness < least) {
    slowness = least;
    latency = x_sum / xx;
  }
  return {Seconds(latency), BytesPerSecond(1 / slowness)};
}

std::vector<std::int64_t> measured_microbatches(const Profile& profile) {
  const auto has = [](const LayerProfile& layer, std::int64_t microbatch) {
    return std::any_of(layer.samples.begin(), layer.samples.end(),
                       [&](const LayerSample& sample) { return sample.microbatch == microbatch; });
  };
  std::vector<std::int64_t> sizes;
  for (const LayerSample& sample : profile.layers.front().samples) {
    const bool of_all = std::all_of(profile.layers.begin(), profile.layers.end(),
                                    [&](const LayerProfile& layer) { return has(layer, sample.microbatch); });
    if (of_all) sizes.push_back(sample.microbatch);
  }
  return sizes;
}

Cluster with_measured_link(Cluster cluster, const Profile& profile, std::string_view link_kind) {
  std::vector<std::string> known;
  for (const LinkProfile& link : profile.links) known.push_back(link.kind);
  const auto measured = std::find(known.begin(), known.end(), link_kind);
  if (measured == known.end()) {
    throw bad_input("the profile has no link '{}'; measured: {}", link_kind, known.empty() ? "none" : join(known));
  }
  const Link& fit = profile.links[static_cast<std::size_t>(measured - known.begin())].fit;
  for (Node& node : cluster.nodes) {
    const bool holds = std::any_of(node.devices.begin(), node.devices.end(), [&](DeviceId device) {
      return cluster.type_of(device).name == profile.device.name;
    });
    if (!holds) continue;
    node.local = fit;
    const auto sum = std::find(known.begin(), known.end(), "sum");
    if (sum == known.end()) continue;
    node.reduction = profile.links[static_cast<std::size_t>(sum - known.begin())].fit.bandwidth;
  }
  return cluster;
}

Profile profile_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Profile profile;
  profile.tool_version = object.required("tool_version").string();
  profile.machine = object.required("machine").string();
  profile.date = object.required("date").string();
  profile.network = object.required("network").string();
  profile.device = device_type_from_json(object.required("device"));
  profile.devices = static_cast<int>(object.required("devices").integer(1, 1'000'000));
  profile.sequence = object.required("sequence").integer(1, max_count);
  profile.precision = object.required("precision").one_of<DataType>(data_type_names());
  profile.optimizer = object.required("optimizer").one_of<Optimizer>(optimizer_names());
  if (const auto overhead = object.optional("action_overhead_s")) profile.action_overhead = read_seconds(*overhead);
  if (const auto overhead = object.optional("step_overhead_s")) profile.step_overhead = read_seconds(*overhead);
  if (const auto kept = object.optional("kept_outputs")) profile.kept_outputs = static_cast<int>(kept->integer(0, 16));
  if (const auto sent = object.optional("message_buffers")) {
    profile.message_buffers = static_cast<int>(sent->integer(0, 16));
  }
  read_layers(object.required("layers"), profile.layers);
  for (const JsonValue& entry : object.required("links").array(1000)) profile.links.push_back(read_link(entry));
  for (const JsonValue& entry : object.required("warnings").array(1000)) profile.warnings.push_back(entry.string());
  object.finish();
  return profile;
}

Json to_json(const Profile& profile) {
  Json json{{"tool_version", profile.tool_version},
            {"machine", profile.machine},
            {"date", profile.date},
            {"network", profile.network},
            {"device", to_json(profile.device)},
            {"devices", profile.devices},
            {"sequence", profile.sequence},
            {"precision", name(profile.precision)},
            {"optimizer", name(profile.optimizer)},
            {"action_overhead_s", profile.action_overhead.value()},
            {"step_overhead_s", profile.step_overhead.value()},
            {"kept_outputs", profile.kept_outputs},
            {"message_buffers", profile.message_buffers},
            {"layers", Json::array()},
            {"links", Json::array()},
            {"warnings", profile.warnings}};
  for (const LayerProfile& layer : profile.layers) json["layers"].push_back(layer_json(layer));
  for (const LinkProfile& link : profile.links) json["links"].push_back(link_json(link));
  return json;
}

Profile load_profile(const std::filesystem::path& path) {
  const Json document = read_json(path);
  return profile_from_json(JsonValue(document, path.string()));
}

void save_profile(const Profile& profile, const std::filesystem::path& path) {
  write_file(path, to_json(profile).dump(1) + "\n");
}

}  // namespace stagecraft
