#include "models/plan.hpp"

#include <algorithm>
#include <array>
#include <set>
#include <span>

#include "models/files.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/torch_csv.hpp"
#include "models/text.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t max_ranks = 65'536;
constexpr std::int64_t max_actions = 50'000'000;
constexpr std::int64_t max_count = std::int64_t{1} << 40;  // samples, tokens: products stay far inside 64 bits

// Position in plan.order of each layer.
std::vector<std::size_t> positions(const Plan& plan) {
  std::vector<std::size_t> position(plan.order.size());
  for (std::size_t i = 0; i < plan.order.size(); ++i) position[plan.order[i]] = i;
  return position;
}

std::size_t stage_at(const Plan& plan, std::size_t position) {
  const auto at = static_cast<std::int64_t>(position);
  const auto stage = std::find_if(plan.stages.begin(), plan.stages.end(),
                                  [&](const PlanStage& s) { return s.layers.first <= at && at < s.layers.last; });
  return static_cast<std::size_t>(stage - plan.stages.begin());
}

// The pairs of layers that share a table, as stages (owner, user).
struct Tie {
  LayerId owner, user;
  std::size_t owner_stage, user_stage;
};

std::vector<Tie> ties(const Plan& plan) {
  const auto position = positions(plan);
  std::vector<Tie> found;
  for (const LayerId user : plan.order) {
    const Layer& layer = plan.network.graph[user];
    if (layer.tied_to.empty()) continue;
    for (const LayerId owner : plan.order) {
      if (plan.network.graph[owner].name == layer.tied_to) {
        found.push_back({owner, user, stage_at(plan, position[owner]), stage_at(plan, position[user])});
      }
    }
  }
  return found;
}

[[noreturn]] void fail(const std::string& file, std::string_view field, const std::string& message) {
  throw bad_input("{}: {}: {}", file, field, message);
}

void validate_order(const Plan& plan, const std::string& file) {
  const std::size_t layers = boost::num_vertices(plan.network.graph);
  if (plan.order.size() != layers) {
    fail(file, "order",
         fmt::format("expected each of the network's {} layers once, got {}", layers, plan.order.size()));
  }
  std::vector<bool> seen(layers, false);
  for (std::size_t i = 0; i < layers; ++i) {
    const std::string field = fmt::format("order[{}]", i);
    if (plan.order[i] >= layers)
      fail(file, field, fmt::format("expected a layer below {}, got {}", layers, plan.order[i]));
    if (seen[plan.order[i]]) fail(file, field, fmt::format("layer {} stands here twice", plan.order[i]));
    seen[plan.order[i]] = true;
  }
  const auto position = positions(plan);
  for (auto [edge, end] = boost::edges(plan.network.graph); edge != end; ++edge) {
    const LayerId from = boost::source(*edge, plan.network.graph), to = boost::target(*edge, plan.network.graph);
    if (position[from] > position[to]) {
      fail(file, fmt::format("order[{}]", position[to]),
           fmt::format("layer '{}' stands before '{}', which it needs", plan.network.graph[to].name,
                       plan.network.graph[from].name));
    }
  }
}

void validate_stages(const Plan& plan, const std::string& file) {
  if (plan.stages.empty()) fail(file, "stages", "expected at least one");
  std::int64_t next = 0;
  const auto layers = static_cast<std::int64_t>(plan.order.size());
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const LayerRange& range = plan.stages[s].layers;
    const std::string field = fmt::format("stages[{}].layers", s);
    if (range.first < next) fail(file, field, fmt::format("layer {} is already in stage {}", range.first, s - 1));
    if (range.first > next) fail(file, field, fmt::format("layers {} to {} are in no stage", next, range.first - 1));
    if (range.last <= range.first) fail(file, field, "expected at least one layer");
    if (range.last > layers) {
      fail(file, field, fmt::format("ends at {}, but the network has {} layers", range.last, layers));
    }
    next = range.last;
  }
  if (next < layers) {
    fail(file, fmt::format("stages[{}].layers", plan.stages.size() - 1),
         fmt::format("layers {} to {} are in no stage", next, layers - 1));
  }
  for (const Tie& tie : ties(plan)) {
    const bool ends = tie.owner_stage == 0 && tie.user_stage + 1 == plan.stages.size();
    if (tie.owner_stage != tie.user_stage && !ends) {
      fail(file, "stages",
           fmt::format("layers '{}' and '{}' share parameters: expected in one stage or at the two ends",
                       plan.network.graph[tie.owner].name, plan.network.graph[tie.user].name));
    }
  }
}

// What the reductions of unusual schedules cannot do.
void validate_sharing(const Plan& plan, const Placement& placement, const std::string& file) {
  const StageId last{plan.schedule.stages - 1};
  if (plan.tied_ends() && (placement.is_shared(StageId{0}) || placement.is_shared(last))) {
    fail(file, "schedule", "the first and the last stage share parameters, but are on different pairs of ranks");
  }
  if (plan.schedule.updates == WeightUpdates::synchronous) return;
  if (plan.schedule.update_group < 1) fail(file, "schedule.update_group", "expected at least 1");
  if (plan.replicas() > 1) fail(file, "devices", "asynchronous schedules train one replica");
  if (plan.tied_ends()) {
    fail(file, "schedule",
         "the first and the last stage share parameters, which asynchronous schedules would update at different times");
  }
}

// What the shards of a rank must divide.
void validate_layout(const Plan& plan, const std::string& file) {
  const PlanLayout& layout = plan.layout;
  if (layout == PlanLayout{}) return;
  if (!plan.network.transformer) fail(file, "layout", "needs a transformer: the layers of a graph are not sharded");
  const Transformer& transformer = *plan.network.transformer;
  const auto divides = [&](std::string_view field, std::int64_t width, std::string_view what, std::int64_t number) {
    if (number % width != 0)
      fail(file, fmt::format("layout.{}", field),
           fmt::format("expected a divisor of {} = {}, got {}", what, number, width));
  };
  divides("tensor", layout.tensor, "heads", transformer.heads);
  divides("tensor", layout.tensor, "ffn", transformer.ffn);
  divides("context", layout.context, "sequence", plan.batch.sequence);
  if (layout.sequence_parallel) {
    divides("sequence_parallel", layout.shards(), "sequence (over tensor x context)", plan.batch.sequence);
  }
  if (layout.expert > 1) {
    if (transformer.experts == 0) fail(file, "layout.expert", "expected 1: the network has no experts");
    divides("expert", layout.expert, "experts", transformer.experts);
    divides("expert", layout.expert, "replicas * context", plan.replicas() * std::int64_t{layout.context});
  }
  if (plan.schedule.updates != WeightUpdates::synchronous) {
    fail(file, "layout", "asynchronous schedules train with one device a rank");
  }
}

void validate_devices(const Plan& plan, const std::string& file) {
  if (plan.devices.empty() || plan.devices.front().empty()) fail(file, "devices", "expected at least one replica");
  if (plan.devices.size() % static_cast<std::size_t>(plan.shards()) != 0) {
    fail(file, "devices",
         fmt::format("expected {} rows a replica (tensor {} x context {}), got {} rows", plan.shards(),
                     plan.layout.tensor, plan.layout.context, plan.devices.size()));
  }
  std::set<DeviceId> used;
  const auto count = static_cast<std::int64_t>(plan.cluster.devices.size());
  for (std::size_t r = 0; r < plan.devices.size(); ++r) {
    if (plan.devices[r].size() != plan.devices.front().size()) {
      fail(file, fmt::format("devices[{}]", r),
           fmt::format("expected {} devices as in the first row, got {}", plan.devices.front().size(),
                       plan.devices[r].size()));
    }
    for (std::size_t i = 0; i < plan.devices[r].size(); ++i) {
      const std::string field = fmt::format("devices[{}][{}]", r, i);
      const DeviceId device = plan.devices[r][i];
      if (device.value < 0 || device.value >= count) {
        fail(file, field,
             fmt::format("device {} does not exist: cluster '{}' has {}", device.value, printable(plan.cluster.name),
                         count));
      }
      if (!used.insert(device).second) fail(file, field, fmt::format("device {} is used twice", device.value));
      if (plan.cluster.devices[static_cast<std::size_t>(device.value)].type !=
          plan.cluster.devices[static_cast<std::size_t>(plan.devices[0][i].value)].type) {
        fail(file, field, "all replicas of a rank must run on one type of device");
      }
    }
  }
}

void validate_schedule(const Plan& plan, const std::string& file) {
  const Batch& batch = plan.batch;
  if (batch.microbatch * batch.microbatches * plan.replicas() != batch.global) {
    fail(file, "batch.global",
         fmt::format("expected microbatch * microbatches * replicas = {} * {} * {} = {}, got {}", batch.microbatch,
                     batch.microbatches, plan.replicas(), batch.microbatch * batch.microbatches * plan.replicas(),
                     batch.global));
  }
  if (plan.network.transformer && batch.sequence > plan.network.transformer->max_sequence) {
    fail(file, "batch.sequence",
         fmt::format("expected at most the network's {} positions, got {}", plan.network.transformer->max_sequence,
                     batch.sequence));
  }
  const ComputeSchedule& schedule = plan.schedule;
  if (static_cast<std::size_t>(schedule.stages) != plan.stages.size()) {
    fail(file, "schedule", fmt::format("has {} stages, the plan {}", schedule.stages, plan.stages.size()));
  }
  if (schedule.slices < 1 || schedule.microbatches != batch.microbatches * schedule.slices) {
    fail(file, "schedule",
         fmt::format("has {} micro-batches in {} slices each, the plan {}",
                     schedule.microbatches / std::max(schedule.slices, 1), schedule.slices, batch.microbatches));
  }
  if (batch.sequence % schedule.slices != 0) {
    fail(file, "schedule", fmt::format("cuts {} tokens into {} unequal slices", batch.sequence, schedule.slices));
  }
  if (schedule.ranks.size() != plan.devices.front().size()) {
    fail(file, "schedule",
         fmt::format("has {} ranks, the plan has devices for {}", schedule.ranks.size(), plan.devices.front().size()));
  }
  if (const auto faults = check(schedule); !faults.empty()) {
    fail(file, "schedule", fmt::format("{}\n{}", faults.front().message, format_grid(schedule, faults)));
  }
  const Placement placement(schedule);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const auto& ranks = placement.ranks(StageId{static_cast<std::int32_t>(s)});
    if (plan.stages[s].rank != ranks.front()) {
      fail(file, fmt::format("stages[{}].rank", s),
           fmt::format("expected {} as in the schedule, got {}", ranks.front().value, plan.stages[s].rank.value));
    }
    if (plan.stages[s].second_rank != (ranks.size() > 1 ? std::optional(ranks.back()) : std::nullopt)) {
      fail(file, fmt::format("stages[{}].second_rank", s),
           ranks.size() > 1 ? fmt::format("expected {} as in the schedule", ranks.back().value)
                            : "the schedule has the stage on one rank");
    }
  }
  validate_sharing(plan, placement, file);
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
  if (cost.reduced) json["reduced_bytes"] = cost.reduced->value();
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
  if (const auto reduced = object.optional("reduced_bytes")) cost.reduced = Bytes(reduced->number(0, 1e30));
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
    throw value.complain(fmt::format("{} stages x {} micro-batches are too many: expected at most {} actions", stages,
                                     microbatches, max_actions));
  }
  if (value.json().is_string() && value.string().ends_with(".csv")) {
    // Relative to the plan, whose JSON will hold the actions when it is written again.
    const auto path = std::filesystem::path(value.file()).parent_path() / value.string();
    return with_context(value.file() + ": " + value.path(),
                        [&] { return from_torch_csv(read_file(path), path.string()); });
  }
  if (value.json().is_string()) {
    if (stages % ranks != 0) {
      throw value.complain(fmt::format("{} stages do not divide over {} ranks: give the actions", stages, ranks));
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

bool Plan::tied_ends() const {
  const auto found = ties(*this);
  return std::any_of(found.begin(), found.end(), [&](const Tie& tie) {
    const PlanStage &owner = stages[tie.owner_stage], &user = stages[tie.user_stage];
    return owner.rank != user.rank || owner.second_rank != user.second_rank;
  });
}

LoweredSchedule Plan::lowered() const {
  // Slices of a sequence have gradients of their own, as replicas do.
  return lower(schedule, {replicas() * layout.context > 1, tied_ends()});
}

void price(Plan& plan, const CostModel& model) {
  if (plan.layout != PlanLayout{}) throw bad_input("layout: a model of whole layers cannot price their shards");
  const LayerGraph& graph = plan.network.graph;
  const Workload workload = plan.workload();
  std::vector<bool> done(plan.order.size(), false);
  const auto found_ties = ties(plan);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    PlanStage& stage = plan.stages[s];
    const DeviceType& device = plan.cluster.type_of(plan.devices[0][static_cast<std::size_t>(stage.rank.value)]);
    std::vector<LayerCost> costs;
    for (auto at = stage.layers.first; at < stage.layers.last; ++at) {
      const LayerId layer = plan.order[static_cast<std::size_t>(at)];
      costs.push_back(model.layer_cost(graph[layer], workload, device));
      done[layer] = true;
    }
    const Bytes boundary =
        element_size(plan.precision) * cut_elements(graph, done).at(plan.batch.microbatch, plan.batch.sequence);
    Bytes tied;
    StageCost held_once;  // what the user of a table counts although its owner is on the same stage
    for (const Tie& tie : found_ties) {
      if (tie.owner_stage != s && tie.user_stage != s) continue;
      // Gradients are as wide as the cost model says they are for the layer that holds the table.
      const Layer& user = graph[tie.user];
      const LayerCost cost = model.layer_cost(user, workload, device);
      const double share = static_cast<double>(user.tied_parameters) / static_cast<double>(user.parameters);
      if (tie.owner_stage != tie.user_stage) {
        tied += cost.gradients * share;
        continue;
      }
      held_once.weights += cost.weights * share;
      held_once.gradients += cost.gradients * share;
      held_once.optimizer_state += cost.optimizer_state * share;
      held_once.optimizer += cost.optimizer * share;
    }
    stage.cost = stage_cost(costs, boundary, tied);
    stage.cost.weights -= held_once.weights;
    stage.cost.gradients -= held_once.gradients;
    stage.cost.optimizer_state -= held_once.optimizer_state;
    stage.cost.optimizer -= held_once.optimizer;
    if (plan.schedule.slices > 1) {
      const double share = 1.0 / plan.schedule.slices;
      stage.cost.forward *= share;
      stage.cost.backward_input *= share;
      stage.cost.backward_weight *= share;
      stage.cost.boundary *= share;
      stage.cost.stash *= share;
    }
  }
}

bool is_priced(const Plan& plan) {
  return std::all_of(plan.stages.begin(), plan.stages.end(),
                     [](const PlanStage& stage) { return stage.cost.forward > Seconds(0); });
}

void validate(const Plan& plan, const std::string& file) {
  validate_order(plan, file);
  validate_stages(plan, file);
  validate_devices(plan, file);
  validate_layout(plan, file);
  validate_schedule(plan, file);
}

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
