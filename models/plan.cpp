#include "models/plan.hpp"

#include <algorithm>
#include <cassert>
#include <set>

#include "models/cost/memory.hpp"
#include "models/network/layer_graph.hpp"
#include "models/schedule/checker.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

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
  const std::size_t layers = plan.network.graph.layers();
  if (plan.order.size() != layers) {
    fail(file, "order",
         fmt::format("expected each of the network's {} once, got {}", counted(static_cast<long long>(layers), "layer"),
                     plan.order.size()));
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
  const LayerGraph& graph = plan.network.graph;
  for (auto [edge, end] = boost::edges(graph); edge != end; ++edge) {
    const LayerId from = boost::source(*edge, graph), to = boost::target(*edge, graph);
    if (position[from] > position[to]) {
      fail(file, fmt::format("order[{}]", position[to]),
           fmt::format("layer '{}' stands before '{}', which it needs", graph[to].name, graph[from].name));
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
      fail(file, field, fmt::format("ends at {}, but the network has {}", range.last, counted(layers, "layer")));
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
  const bool is_one_device = layout.has_layers_by_rank() && layout.zero == 0;
  if (!is_one_device && plan.schedule.updates != WeightUpdates::synchronous) {
    fail(file, "layout", "asynchronous schedules train with one device a rank");
  }
  if (layout.has_whole_layers()) return;
  if (!plan.network.transformer) fail(file, "layout", "needs a transformer: the layers of a graph are not sharded");
  const Transformer& transformer = *plan.network.transformer;
  const auto divides = [&](std::string_view field, std::int64_t width, std::string_view what, std::int64_t number) {
    if (number % width != 0)
      fail(file, fmt::format("layout.{}", field),
           fmt::format("expected a divisor of {} = {}, got {}", what, number, width));
  };
  divides("tensor", layout.tensor, "heads", transformer.heads);
  divides("tensor", layout.tensor, "ffn", transformer.ffn);
  divides("tensor", layout.tensor, "dense_ffn", transformer.dense_ffn);
  divides("context", layout.context, "sequence", plan.batch.sequence);
  if (layout.sequence_parallel) {
    divides("sequence_parallel", layout.shards(), "sequence (over tensor x context)", plan.batch.sequence);
  }
  if (!layout.recomputed_by_rank.empty() && std::ssize(layout.recomputed_by_rank) != plan.ranks()) {
    fail(file, "layout.recomputed_layers",
         fmt::format("expected a number for each of {}, got {}", counted(plan.ranks(), "rank"),
                     layout.recomputed_by_rank.size()));
  }
  if (layout.expert > 1) {
    if (transformer.experts == 0) fail(file, "layout.expert", "expected 1: the network has no experts");
    divides("expert", layout.expert, "experts", transformer.experts);
    const std::int64_t replicas = plan.replicas() * std::int64_t{layout.context};
    if (folds_experts(plan)) {
      divides("expert", layout.expert, "replicas * context * tensor", replicas * layout.tensor);
      if (!layout.sequence_parallel) {
        fail(file, "layout.expert",
             fmt::format("expected a divisor of replicas * context = {}, or sequence parallelism, got {}", replicas,
                         layout.expert));
      }
    }
  }
}

void validate_devices(const Plan& plan, const std::string& file) {
  if (plan.devices.empty() || plan.devices.front().empty()) fail(file, "devices", "expected at least one replica");
  if (plan.devices.size() % static_cast<std::size_t>(plan.shards()) != 0) {
    fail(file, "devices",
         fmt::format("expected {} a replica (tensor {} x context {}), got {}", counted(plan.shards(), "row"),
                     plan.layout.tensor, plan.layout.context, counted(std::ssize(plan.devices), "row")));
  }
  std::set<DeviceId> used;
  const auto count = static_cast<std::int64_t>(plan.cluster.devices.size());
  for (std::size_t r = 0; r < plan.devices.size(); ++r) {
    if (plan.devices[r].size() != plan.devices.front().size()) {
      fail(file, fmt::format("devices[{}]", r),
           fmt::format("expected {} as in the first row, got {}", counted(std::ssize(plan.devices.front()), "device"),
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
    fail(file, "schedule", fmt::format("has {}, the plan {}", counted(schedule.stages, "stage"), plan.stages.size()));
  }
  if (schedule.slices < 1 || schedule.microbatches != batch.microbatches * schedule.slices) {
    fail(file, "schedule",
         fmt::format("has {} in {} each, the plan {}",
                     counted(schedule.microbatches / std::max(schedule.slices, 1), "micro-batch"),
                     counted(schedule.slices, "slice"), batch.microbatches));
  }
  if (batch.sequence % schedule.slices != 0) {
    fail(file, "schedule",
         fmt::format("cuts {} into {} unequal slices", counted(batch.sequence, "token"), schedule.slices));
  }
  if (schedule.ranks.size() != plan.devices.front().size()) {
    fail(file, "schedule",
         fmt::format("has {}, the plan has devices for {}", counted(std::ssize(schedule.ranks), "rank"),
                     plan.devices.front().size()));
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

// Whether the two layers are on different ranks, which then hold the table twice.
bool is_apart(const Plan& plan, const Tie& tie) {
  const PlanStage &owner = plan.stages[tie.owner_stage], &user = plan.stages[tie.user_stage];
  return owner.rank != user.rank || owner.second_rank != user.second_rank;
}

}  // namespace

bool Plan::tied_ends() const {
  const auto found = ties(*this);
  return std::any_of(found.begin(), found.end(), [&](const Tie& tie) { return is_apart(*this, tie); });
}

LoweredSchedule Plan::lowered() const {
  // Slices of a sequence have gradients of their own, as replicas do.
  return lower(schedule, {replicas() * layout.context > 1, tied_ends()});
}

namespace {

// The first replica's.
const DeviceType& device_type_of(const Plan& plan, const PlanStage& stage) {
  return plan.cluster.type_of(plan.devices[0][static_cast<std::size_t>(stage.rank.value)]);
}

// Prices every stage's layers, without what comes on top of them.
void price_layers(Plan& plan, const CostModel& model, Workload workload, std::span<const Load> loads) {
  const LayerGraph& graph = plan.network.graph;
  std::vector<bool> done(plan.order.size(), false);
  const auto found_ties = ties(plan);
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    PlanStage& stage = plan.stages[s];
    const DeviceType& device = device_type_of(plan, stage);
    if (!loads.empty()) workload.load = loads[s];
    std::vector<LayerCost> costs;
    const auto& by_rank = plan.layout.recomputed_by_rank;
    int left = by_rank.empty() ? all_layers : by_rank[static_cast<std::size_t>(stage.rank.value)];  // that recompute
    for (auto at = stage.layers.first; at < stage.layers.last; ++at) {
      const LayerId layer = plan.order[static_cast<std::size_t>(at)];
      Workload own = workload;
      if (may_recompute(graph[layer]) && left-- <= 0) own.recompute = Recompute::none;
      costs.push_back(model.layer_cost(graph[layer], own, device));
      done[layer] = true;
    }
    const Bytes boundary =
        element_size(plan.precision) * cut_elements(graph, done).at(plan.batch.microbatch, plan.batch.sequence);
    Bytes tied;
    StageCost held_once;  // what the user of a table counts although its owner is on the same rank
    for (const Tie& tie : found_ties) {
      if (tie.owner_stage != s && tie.user_stage != s) continue;
      // Gradients are as wide as the cost model says they are for the layer that holds the table.
      const Layer& user = graph[tie.user];
      const LayerCost cost = model.layer_cost(user, workload, device);
      const double share = static_cast<double>(user.tied_parameters) / static_cast<double>(user.parameters);
      if (is_apart(plan, tie)) {
        tied += cost.gradients * share;
        continue;
      }
      if (tie.user_stage != s) continue;
      held_once.weights += cost.weights * share;
      held_once.gradients += cost.gradients * share;
      if (cost.reduced) held_once.reduced = held_once.reduced.value_or(Bytes(0)) + *cost.reduced * share;
      held_once.optimizer_state += cost.optimizer_state * share;
      held_once.optimizer += cost.optimizer * share;
    }
    stage.cost = stage_cost(costs, boundary, tied);
    stage.cost.weights -= held_once.weights;
    stage.cost.gradients -= held_once.gradients;
    if (held_once.reduced) stage.cost.reduced = stage.cost.reduced_gradients() - *held_once.reduced;
    stage.cost.optimizer_state -= held_once.optimizer_state;
    stage.cost.optimizer -= held_once.optimizer;
    if (plan.layout.zero == 1) shard_optimizer(stage.cost, plan.replicas());
    if (plan.schedule.slices > 1) {
      const double share = 1.0 / plan.schedule.slices;
      stage.cost.forward *= share;
      stage.cost.backward_input *= share;
      stage.cost.backward_weight *= share;
      stage.cost.backward_saving *= share;
      stage.cost.boundary *= share;
      stage.cost.stash *= share;
      stage.cost.split *= share;
    }
  }
}

void add_overheads(Plan& plan, const CostModel& model) {
  std::set<RankId> ranks;
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    PlanStage& stage = plan.stages[s];
    const Overheads more = model.overheads(device_type_of(plan, stage));
    stage.cost.forward += more.action;
    stage.cost.backward_input += more.action;
    stage.cost.backward_weight += more.action;
    stage.cost.backward_saving += more.action;  // one action instead of two
    if (ranks.insert(stage.rank).second) stage.cost.optimizer += more.step;
    stage.cost.workspace += more.reserved;  // which a rank's stages share
    if (s + 1 < plan.stages.size() && plan.stages[s + 1].rank != stage.rank) {
      stage.cost.stash += stage.cost.boundary * static_cast<double>(more.kept_outputs);
    }
    if (s > 0 && plan.stages[s - 1].rank != stage.rank) {
      stage.cost.workspace += plan.stages[s - 1].cost.boundary * static_cast<double>(more.message_buffers);
    }
  }
}

}  // namespace

void price(Plan& plan, const CostModel& model, std::span<const Load> loads) {
  assert(loads.empty() || loads.size() == plan.stages.size());
  if (!plan.layout.has_layers_by_rank()) throw bad_input("layout: a model of whole layers cannot price their shards");
  const auto price_all = [&](std::optional<int> busy_neighbours, bool beside_forwards = false) {
    Workload workload = plan.workload();
    workload.busy_neighbours = busy_neighbours;
    workload.beside_forwards = beside_forwards;
    price_layers(plan, model, workload, loads);
    add_overheads(plan, model);
  };
  int most = 0;
  for (const PlanStage& stage : plan.stages) most = std::max(most, most_neighbours(device_type_of(plan, stage)));
  std::vector<std::vector<ComputeTimes>> beside(plan.stages.size());
  for (int busy = 0; busy <= most && most > 0; ++busy) {
    price_all(busy);
    for (std::size_t s = 0; s < beside.size(); ++s) {
      const int neighbours = most_neighbours(device_type_of(plan, plan.stages[s]));
      if (neighbours > 0 && busy <= neighbours) beside[s].push_back(plan.stages[s].cost.times());
    }
  }
  std::vector<ComputeTimes> beside_forwards;
  if (most > 0) {
    price_all(std::nullopt, true);
    for (const PlanStage& stage : plan.stages) beside_forwards.push_back(stage.cost.times());
  }
  price_all(std::nullopt);
  for (std::size_t s = 0; s < beside.size(); ++s) {
    StageCost& cost = plan.stages[s].cost;
    if (!beside[s].empty() && beside_forwards[s] != cost.times()) cost.beside_forwards = beside_forwards[s];
    cost.beside = std::move(beside[s]);
  }
}

int Plan::devices_used() const {
  int count = 0;
  for (const std::vector<DeviceId>& row : devices) {
    for (const DeviceId device : row) count += cluster.type_of(device).group;
  }
  return count;
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

}  // namespace stagecraft
