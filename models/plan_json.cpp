// The JSON format of plans: docs/file_formats.md.
#include <array>
#include <nlohmann/json.hpp>
#include <span>

#include "models/files.hpp"
#include "models/network/layer_graph.hpp"
#include "models/plan.hpp"
#include "models/schedule/torch_csv.hpp"
#include "models/text.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t max_ranks = 65'536;
constexpr std::int64_t max_actions = 50'000'000;
constexpr std::int64_t max_count = std::int64_t{1} << 40;  // samples, tokens: products stay far inside 64 bits

constexpr std::array<std::pair<std::string_view, Seconds ComputeTimes::*>, 5> compute_times{
    {{"forward_s", &ComputeTimes::forward},
     {"backward_input_s", &ComputeTimes::backward_input},
     {"backward_weight_s", &ComputeTimes::backward_weight},
     {"backward_saving_s", &ComputeTimes::backward_saving},
     {"optimizer_s", &ComputeTimes::optimizer}}};

Json times_to_json(const ComputeTimes& times) {
  Json json;
  for (const auto& [name, time] : compute_times) json[name] = (times.*time).value();
  return json;
}

ComputeTimes times_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  ComputeTimes times;
  for (const auto& [name, time] : compute_times) {
    const bool saving = time == &ComputeTimes::backward_saving;
    const double most = saving ? (times.backward_input + times.backward_weight).value() : 1e30;
    times.*time = Seconds(object.required(name).number(0, most));
  }
  object.finish();
  return times;
}

Json cost_to_json(const StageCost& cost) {
  Json json{{"forward_s", cost.forward.value()},
            {"backward_input_s", cost.backward_input.value()},
            {"backward_weight_s", cost.backward_weight.value()},
            {"optimizer_s", cost.optimizer.value()},
            {"boundary_bytes", cost.boundary.value()},
            {"stash_bytes", cost.stash.value()},
            {"weights_bytes", cost.weights.value()},
            {"gradients_bytes", cost.gradients.value()},
            {"optimizer_state_bytes", cost.optimizer_state.value()},
            {"workspace_bytes", cost.workspace.value()},
            {"tied_bytes", cost.tied.value()}};
  if (cost.backward_saving != Seconds(0)) json["backward_saving_s"] = cost.backward_saving.value();
  if (cost.split != Bytes(0)) json["split_bytes"] = cost.split.value();
  if (cost.reduced) json["reduced_bytes"] = cost.reduced->value();
  for (const ComputeTimes& times : cost.beside) json["beside"].push_back(times_to_json(times));
  if (cost.beside_forwards) json["beside_forwards"] = times_to_json(*cost.beside_forwards);
  return json;
}

StageCost cost_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  const auto read = [&](std::string_view name) { return object.required(name).number(0, 1e30); };
  StageCost cost;
  cost.forward = Seconds(read("forward_s"));
  cost.backward_input = Seconds(read("backward_input_s"));
  cost.backward_weight = Seconds(read("backward_weight_s"));
  cost.optimizer = Seconds(read("optimizer_s"));
  cost.boundary = Bytes(read("boundary_bytes"));
  cost.stash = Bytes(read("stash_bytes"));
  cost.weights = Bytes(read("weights_bytes"));
  cost.gradients = Bytes(read("gradients_bytes"));
  cost.optimizer_state = Bytes(read("optimizer_state_bytes"));
  cost.workspace = Bytes(read("workspace_bytes"));
  cost.tied = Bytes(read("tied_bytes"));
  if (const auto saving = object.optional("backward_saving_s")) {
    const Seconds parts = cost.backward_input + cost.backward_weight;
    cost.backward_saving = Seconds(saving->number(0, parts.value()));
  }
  if (const auto split = object.optional("split_bytes")) cost.split = Bytes(split->number(0, 1e30));
  if (const auto reduced = object.optional("reduced_bytes")) cost.reduced = Bytes(reduced->number(0, 1e30));
  if (const auto beside = object.optional("beside")) {
    for (const JsonValue& entry : beside->array(1000)) cost.beside.push_back(times_from_json(entry));
  }
  if (const auto forwards = object.optional("beside_forwards")) cost.beside_forwards = times_from_json(*forwards);
  object.finish();
  return cost;
}

constexpr std::array<std::string_view, 4> weight_updates_names{"synchronous", "pipedream", "vertical_sync",
                                                               "two_buffered"};

Json schedule_to_json(const ComputeSchedule& schedule) {
  Json ranks = Json::array();
  for (const auto& actions : schedule.ranks) {
    std::string line;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (i > 0) line += i > 0 && actions[i - 1].overlapped ? '+' : ' ';
      line += to_string(actions[i]);
    }
    ranks.push_back(line);
  }
  Json json = {{"name", schedule.name}, {"ranks", ranks}};
  if (schedule.slices > 1) json["slices"] = schedule.slices;
  if (schedule.forward_only) json["forward_only"] = true;
  if (schedule.updates != WeightUpdates::synchronous) {
    json["updates"] = weight_updates_names[static_cast<std::size_t>(schedule.updates)];
    json["update_group"] = schedule.update_group;
  }
  return json;
}

std::vector<Action> actions_from_json(const JsonValue& value) {
  const std::string text = value.string(256U << 20);
  if (static_cast<std::int64_t>(text.size()) > max_actions * 4) throw value.expected("fewer actions");
  std::vector<Action> actions;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(" +", at), text.size());
    const std::string_view word = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    auto action = parse_action(word);
    if (action && end < text.size()) action->overlapped = text[end] == '+';
    if (!action || !is_compute(action->kind)) {
      throw value.complain(
          fmt::format("action {}: expected one such as \"2F0\", \"2B0\", \"2I0\" or \"2W0\", got \"{}\"",
                      actions.size(), printable(word)));
    }
    actions.push_back(*action);
  }
  return actions;
}

// A name stands for the generated schedule, so that plans are easy to write by hand; a name that ends in .csv for that
// file of torch's.
ComputeSchedule schedule_from_json(const JsonValue& value, int ranks, int stages, std::int64_t microbatches) {
  if (ranks * max_actions / 1000 < 1 || microbatches * 2 * stages > max_actions) {
    throw value.complain(fmt::format("{} x {} are too many: expected at most {} actions", counted(stages, "stage"),
                                     counted(microbatches, "micro-batch"), max_actions));
  }
  if (value.json().is_string() && value.string().ends_with(".csv")) {
    // Relative to the plan, whose JSON will hold the actions when it is written again.
    const auto path = std::filesystem::path(value.file()).parent_path() / value.string();
    return with_context(value.file() + ": " + value.path(),
                        [&] { return from_torch_csv(read_file(path), path.string()); });
  }
  if (value.json().is_string()) {
    if (stages % ranks != 0) {
      throw value.complain(
          fmt::format("{} over {} do not divide: give the actions", counted(stages, "stage"), counted(ranks, "rank")));
    }
    const ScheduleShape shape{ranks, stages / ranks, static_cast<int>(microbatches)};
    return with_context(value.file() + ": " + value.path(), [&] { return make_schedule(value.string(), shape); });
  }
  JsonObject object = value.object();
  ComputeSchedule schedule;
  schedule.name = object.required("name").string();
  schedule.stages = stages;
  schedule.microbatches = static_cast<int>(microbatches);
  for (const JsonValue& rank : object.required("ranks").array(max_ranks)) {
    schedule.ranks.push_back(actions_from_json(rank));
  }
  if (const auto slices = object.optional("slices")) {
    schedule.slices = static_cast<int>(slices->integer(1, 1 << 20));
    if (microbatches * schedule.slices * 2 * stages > max_actions) throw slices->complain("too many actions");
    schedule.microbatches *= schedule.slices;
  }
  if (const auto forward_only = object.optional("forward_only")) schedule.forward_only = forward_only->boolean();
  if (const auto updates = object.optional("updates")) {
    const auto found = std::find(weight_updates_names.begin(), weight_updates_names.end(), updates->string());
    if (found == weight_updates_names.end())
      throw updates->expected("synchronous, pipedream, vertical_sync or two_buffered");
    schedule.updates = static_cast<WeightUpdates>(found - weight_updates_names.begin());
  }
  if (const auto group = object.optional("update_group")) {
    schedule.update_group = static_cast<int>(group->integer(1, 1 << 20));
  }
  object.finish();
  return schedule;
}

Json prediction_to_json(const Prediction& prediction) {
  Json json = Json::object();
  if (prediction.closed_form_step) json["closed_form_step_s"] = prediction.closed_form_step->value();
  if (prediction.timeline_step) json["timeline_step_s"] = prediction.timeline_step->value();
  if (prediction.simgrid_step) json["simgrid_step_s"] = prediction.simgrid_step->value();
  json["bubble"] = prediction.bubble;
  json["peak_memory_bytes"] = Json::array();
  for (const Bytes bytes : prediction.peak_memory) json["peak_memory_bytes"].push_back(bytes.value());
  return json;
}

Prediction prediction_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Prediction prediction;
  const auto read = [&](std::string_view name) -> std::optional<Seconds> {
    const auto field = object.optional(name);
    return field ? std::optional(Seconds(field->number(0, 1e30))) : std::nullopt;
  };
  prediction.closed_form_step = read("closed_form_step_s");
  prediction.timeline_step = read("timeline_step_s");
  prediction.simgrid_step = read("simgrid_step_s");
  if (const auto bubble = object.optional("bubble")) prediction.bubble = bubble->number(0, 1);
  if (const auto peaks = object.optional("peak_memory_bytes")) {
    for (const JsonValue& peak : peaks->array(max_ranks)) prediction.peak_memory.emplace_back(peak.number(0, 1e30));
  }
  object.finish();
  return prediction;
}

Batch batch_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  Batch batch;
  // Each bound leaves room for the products that validate() makes.
  batch.global = object.required("global").integer(1, max_count);
  batch.microbatch = object.required("microbatch").integer(1, 1 << 20);
  batch.microbatches = object.required("microbatches").integer(1, 1 << 20);
  batch.sequence = object.required("sequence").integer(1, 1 << 30);
  object.finish();
  return batch;
}

PlanStage stage_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  PlanStage stage;
  const JsonValue layers = object.required("layers");
  const auto ends = layers.array(2);
  if (ends.size() != 2) throw layers.expected("[first, end), two layer positions");
  stage.layers = {ends[0].integer(0, 1'000'000'000), ends[1].integer(0, 1'000'000'000)};
  stage.rank = RankId{static_cast<std::int32_t>(object.required("rank").integer(0, max_ranks - 1))};
  if (const auto second = object.optional("second_rank")) {
    stage.second_rank = RankId{static_cast<std::int32_t>(second->integer(0, max_ranks - 1))};
  }
  if (const auto cost = object.optional("cost")) stage.cost = cost_from_json(*cost);
  object.finish();
  return stage;
}

}  // namespace

Plan plan_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  object.required("format").one_of<int>(std::array{std::pair<std::string_view, int>{"stagecraft-plan", 1}});
  Plan plan;
  if (const auto field = object.optional("tool_version")) plan.tool_version = field->string();
  plan.network = network_from_json(object.required("network"), "network");
  plan.cluster = cluster_from_json(object.required("cluster"));
  plan.batch = batch_from_json(object.required("batch"));
  plan.precision = object.required("precision").one_of(data_type_names());
  plan.optimizer = object.required("optimizer").one_of(optimizer_names());
  if (const auto field = object.optional("recompute")) plan.recompute = field->one_of(recompute_names());
  if (const auto field = object.optional("fused_attention")) plan.fused_attention = field->boolean();
  if (const auto field = object.optional("layout")) plan.layout = plan_layout_from_json(*field);
  if (const auto order = object.optional("order")) {
    for (const JsonValue& layer : order->array()) {
      plan.order.push_back(static_cast<LayerId>(layer.integer(0, 1'000'000'000)));
    }
  } else {
    plan.order = topological_order(plan.network.graph);
  }
  const JsonValue stages = object.required("stages");
  for (const JsonValue& stage : stages.array(max_ranks)) plan.stages.push_back(stage_from_json(stage));
  if (plan.stages.empty()) throw stages.expected("at least one stage");
  const JsonValue devices = object.required("devices");
  for (const JsonValue& replica : devices.array(max_ranks)) {
    plan.devices.emplace_back();
    for (const JsonValue& device : replica.array(max_ranks)) {
      plan.devices.back().push_back(DeviceId{static_cast<std::int32_t>(device.integer(0, 1'000'000'000))});
    }
  }
  if (plan.ranks() == 0) throw devices.expected("at least one replica with at least one device");
  plan.schedule = schedule_from_json(object.required("schedule"), plan.ranks(), static_cast<int>(plan.stages.size()),
                                     plan.batch.microbatches);
  if (const auto field = object.optional("prediction")) plan.prediction = prediction_from_json(*field);
  if (const auto field = object.optional("digests")) {
    JsonObject digests = field->object();
    if (const auto text = digests.optional("network")) plan.network_digest = text->string();
    if (const auto text = digests.optional("cluster")) plan.cluster_digest = text->string();
    if (const auto text = digests.optional("profile")) plan.profile_digest = text->string();
    digests.finish();
  }
  object.finish();
  validate(plan, value.file());
  return plan;
}

Json to_json(const Plan& plan) {
  Json json;
  json["format"] = "stagecraft-plan";
  json["tool_version"] = plan.tool_version.empty() ? version : plan.tool_version;
  json["network"] = to_json(plan.network);
  json["cluster"] = to_json(plan.cluster);
  json["batch"] = {{"global", plan.batch.global},
                   {"microbatch", plan.batch.microbatch},
                   {"microbatches", plan.batch.microbatches},
                   {"sequence", plan.batch.sequence}};
  json["precision"] = name(plan.precision);
  json["optimizer"] = name(plan.optimizer);
  json["recompute"] = name(plan.recompute);
  json["fused_attention"] = plan.fused_attention;
  if (plan.layout != PlanLayout{}) json["layout"] = to_json(plan.layout);
  json["order"] = plan.order;
  json["stages"] = Json::array();
  for (const PlanStage& stage : plan.stages) {
    Json entry = {{"layers", {stage.layers.first, stage.layers.last}}, {"rank", stage.rank.value}};
    if (stage.second_rank) entry["second_rank"] = stage.second_rank->value;
    if (stage.cost != StageCost{}) entry["cost"] = cost_to_json(stage.cost);
    json["stages"].push_back(std::move(entry));
  }
  json["devices"] = Json::array();
  for (const auto& replica : plan.devices) {
    Json row = Json::array();
    for (const DeviceId device : replica) row.push_back(device.value);
    json["devices"].push_back(std::move(row));
  }
  json["schedule"] = schedule_to_json(plan.schedule);
  json["prediction"] = prediction_to_json(plan.prediction);
  json["digests"] = {
      {"network", plan.network_digest}, {"cluster", plan.cluster_digest}, {"profile", plan.profile_digest}};
  return json;
}

Plan load_plan(const std::filesystem::path& path) {
  const Json document = read_json(path);
  return plan_from_json(JsonValue(document, path.string()));
}

void save_plan(const Plan& plan, const std::filesystem::path& path) { write_file(path, to_json(plan).dump(1) + "\n"); }

}  // namespace stagecraft
