#include "planner/layout_plan.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "models/cost/layer_split.hpp"
#include "models/cost/memory.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/files.hpp"
#include "models/network/layer_graph.hpp"
#include "models/recomputed_layers.hpp"
#include "models/version.hpp"
#include "planner/explain.hpp"
#include "planner/own_order.hpp"
#include "sim/plan_trace.hpp"
#include "sim/timeline.hpp"
#include "sim/traffic.hpp"

namespace stagecraft {
namespace {

std::size_t index(RankId rank) { return static_cast<std::size_t>(rank.value); }

// Blocks of each stage, by the first rank that it is on.
std::vector<std::int64_t> blocks_by_stage(const Plan& plan) {
  const auto head = static_cast<std::int64_t>(plan.order.size()) - 1;
  std::vector<std::int64_t> blocks;
  for (const PlanStage& stage : plan.stages) {
    blocks.push_back(std::min(stage.layers.last, head) - std::max<std::int64_t>(stage.layers.first, 1));
  }
  return blocks;
}

// Of the stage's blocks, those among the network's leading dense ones.
std::int64_t dense_blocks_of(const Plan& plan, const PlanStage& stage) {
  const std::int64_t last = std::min(stage.layers.last, plan.network.transformer->dense_layers + 1);
  return std::max<std::int64_t>(0, last - std::max<std::int64_t>(stage.layers.first, 1));
}

// Prices one plan, stage by stage.
class Pricing {
 public:
  Pricing(Plan& plan, const StepModel& model, const ParallelLayout& layout)
      : plan_(plan), model_(model), layout_(layout), shard_(model.shard(layout)), blocks_(blocks_by_stage(plan)) {}

  void run() {
    const StepTerms terms = model_.estimate(layout_, shard_).terms;
    const double stages_on_rank = static_cast<double>(plan_.stages.size()) / plan_.ranks();
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      plan_.stages[s].cost = {};
      add_times(s);
      add_exchange(s);
      add_memory(s);
      plan_.stages[s].cost.optimizer = Seconds((terms.optimizer + terms.other) / stages_on_rank);
    }
    add_reductions(terms.data_once);
  }

 private:
  bool is_first(std::size_t stage) const { return stage == 0; }
  bool is_last(std::size_t stage) const { return stage + 1 == plan_.stages.size(); }
  // Share of its rank's blocks.
  double share(std::size_t stage) const {
    const auto all = static_cast<double>(layers_on(stage));
    return all > 0 ? static_cast<double>(blocks_[stage]) / all : 1;
  }
  MeanBlock mean_block(std::size_t stage) const {
    return {shard_, static_cast<double>(blocks_[stage]),
            static_cast<double>(dense_blocks_of(plan_, plan_.stages[stage]))};
  }
  std::int64_t layers_on(std::size_t stage) const { return model_.layers_of(layout_, plan_.stages[stage].rank.value); }
  // Blocks of the stage that recompute.
  double repeated(std::size_t stage) const {
    return share(stage) * static_cast<double>(model_.recomputed_of(layout_, shard_, plan_.stages[stage].rank.value));
  }

  void add_times(std::size_t s) {
    const MeanBlock mean = mean_block(s);
    const LayerShard& block = *mean;
    const auto mode = static_cast<std::size_t>(layout_.recompute);
    const auto n = static_cast<double>(blocks_[s]);
    double forward = n * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward);
    double input = n * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward) +
                   repeated(s) * (block.recompute[mode] + block.tensor_recompute[mode]);
    double weight = n * block.backward_weight;
    for (const auto& [here, layer] : {std::pair(is_first(s), &shard_.embedding), std::pair(is_last(s), &shard_.head)}) {
      if (!here) continue;
      forward += layer->forward + layer->tensor_forward;
      input += layer->backward_input + layer->tensor_backward;
      weight += layer->backward_weight;
    }
    StageCost& cost = plan_.stages[s].cost;
    cost.forward = Seconds(forward);
    cost.backward_input = Seconds(input);
    cost.backward_weight = Seconds(weight);
    cost.boundary = Bytes(is_last(s) ? 0 : shard_.boundary);
  }

  // What replicas exchange for every micro-batch, where nothing else goes on meanwhile.
  void add_exchange(std::size_t s) {
    const auto n = static_cast<double>(blocks_[s]);
    const MeanBlock block = mean_block(s);
    double parameters = n * block->parameters;
    if (is_first(s)) parameters += shard_.embedding.parameters;
    if (is_last(s)) parameters += shard_.head.parameters;
    StageCost& cost = plan_.stages[s].cost;
    double forward = cost.forward.value(), backward = (cost.backward_input + cost.backward_weight).value();
    if (layout_.pipeline > 1) std::tie(forward, backward) = covering(*block, n);
    const double V = layout_.virtual_stages;
    const ReplicaTime times =
        model_.replica_time(layout_, V * parameters, V * n * block->expert_parameters, V * forward, V * backward);
    cost.forward += Seconds(times.forward);
    cost.backward_input += Seconds(times.backward);
  }

  void add_memory(std::size_t s) {
    StageCost& cost = plan_.stages[s].cost;
    const StageMemory memory = model_.memory(layout_, shard_, plan_.stages[s].rank.value);
    const double part = share(s) / weight_copies(layout_.schedule);
    cost.weights = Bytes(memory.weights * part);
    cost.gradients = Bytes(memory.gradients * part);
    cost.optimizer_state = Bytes(memory.optimizer_state * part);
    cost.workspace = Bytes(memory.workspace + memory.reserved);
    if (layout_.offload_activations) {
      // The head's and what is on its way, however many micro-batches are in flight.
      cost.workspace += Bytes(memory.activations);
      return;
    }
    const double fragmented = 1 + model_.machine().framework.fragmentation;
    if (is_last(s)) cost.workspace += Bytes(shard_.head.stash[0] * fragmented);
    const MeanBlock block = mean_block(s);
    const double kept = repeated(s) * block->stash[static_cast<std::size_t>(layout_.recompute)] +
                        (static_cast<double>(blocks_[s]) - repeated(s)) * block->stash[0];
    cost.stash = Bytes((kept + (is_first(s) ? shard_.embedding.stash[0] : 0)) * fragmented);
  }

  // Seconds that the slowest stage's reductions take where nothing else uses the network.
  double reduction_time() const {
    double slowest = 0;
    for (const auto& groups : reductions_of(plan_).distinct) {
      for (const AllReduce& reduction : groups) slowest = std::max(slowest, reduction.time.value());
    }
    return slowest;
  }

  double tied_time() {
    if (!plan_.tied_ends()) return 0;
    const double gradient = parameter_bytes(plan_.precision, plan_.optimizer).gradient.value();
    plan_.stages.front().cost.tied = plan_.stages.back().cost.tied = Bytes(gradient * shard_.embedding.parameters);
    const auto& row = plan_.devices.front();
    const std::vector<DeviceId> ends{row[index(plan_.stages.front().rank)], row[index(plan_.stages.back().rank)]};
    return plan_all_reduce(plan_.cluster, ends, plan_.stages.front().cost.tied).time.value();
  }

  // Whole gradients first, then the share of them that takes `shown`: a rank's with its first stage, whose backward is
  // the rank's last. Stages on two ranks each have their own.
  void add_reductions(double shown) {
    shown = std::max(0.0, shown - tied_time());
    ParallelLayout whole = layout_;
    whole.zero = 0;
    const int copies = weight_copies(layout_.schedule);
    std::vector<bool> done(index(RankId{plan_.ranks()}), false);
    for (std::size_t s = 0; s < plan_.stages.size(); ++s) {
      const RankId rank = plan_.stages[s].rank;
      const double gradients = model_.memory(whole, shard_, rank.value).gradients;
      const double part = copies > 1 ? share(s) / copies : done[index(rank)] ? 0 : 1;
      plan_.stages[s].cost.reduced = Bytes(gradients * part);
      done[index(rank)] = true;
    }
    const double alone = reduction_time();
    for (PlanStage& stage : plan_.stages) *stage.cost.reduced *= alone > 0 ? shown / alone : 0;
  }

  Plan& plan_;
  const StepModel& model_;
  const ParallelLayout layout_;
  const Shard shard_;
  const std::vector<std::int64_t> blocks_;
};

// Stages as the schedule places them, of as many blocks as the job says; else each rank's blocks are shared out evenly
// among its stages, the last ones, which have the fewest micro-batches in flight, taking what is left over. A stage on
// two ranks has the blocks of the rank with its number.
void add_stages(Plan& plan, const StepModel& model, const ParallelLayout& layout) {
  const Placement placement(plan.schedule);
  std::vector<std::int64_t> left, stages_left(static_cast<std::size_t>(layout.pipeline));
  for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) left.push_back(model.layers_of(layout, rank));
  const auto home = [&](std::int32_t s) {
    if (weight_copies(layout.schedule) == 1) return index(placement.ranks(StageId{s}).front());
    return static_cast<std::size_t>(s < layout.pipeline ? s : 2 * layout.pipeline - 1 - s);
  };
  for (std::int32_t s = 0; s < plan.schedule.stages; ++s) ++stages_left[home(s)];
  std::int64_t next = 0;
  for (std::int32_t s = 0; s < plan.schedule.stages; ++s) {
    const auto& ranks = placement.ranks(StageId{s});
    std::int64_t& blocks = left[home(s)];
    std::int64_t& sharing = stages_left[home(s)];
    const auto& by_hand = model.job().stage_blocks;
    std::int64_t count = by_hand.empty() ? blocks / sharing : by_hand[static_cast<std::size_t>(s)];
    blocks -= count;
    --sharing;
    count += (s == 0 ? 1 : 0) + (s + 1 == plan.schedule.stages ? 1 : 0);  // embedding, head
    PlanStage& stage = plan.stages.emplace_back();
    stage.layers = {next, next + count};
    stage.rank = ranks.front();
    if (ranks.size() > 1) stage.second_rank = ranks.back();
    next += count;
  }
}

void predict(Plan& plan, const StepEstimate& estimate) {
  Timeline timeline(plan.lowered());
  const StepCosts costs = step_costs(plan);
  plan.prediction.closed_form_step = estimate.time;
  plan.prediction.timeline_step = timeline.makespan(costs);
  plan.prediction.bubble = bubble_of(break_down(timeline, costs));
  plan.prediction.peak_memory = trace_header(plan, "").peak_memory;
  plan.prediction.peak_memory.resize(static_cast<std::size_t>(plan.ranks()));
}

}  // namespace

TrainingJob job_of(const Plan& plan) {
  TrainingJob job{*plan.network.transformer, plan.batch.global, plan.batch.sequence, plan.precision, plan.optimizer,
                  plan.fused_attention};
  for (const std::int64_t blocks : blocks_by_stage(plan)) job.stage_blocks.push_back(static_cast<std::int32_t>(blocks));
  job.recomputed_blocks = plan.layout.recomputed_by_rank;
  return job;
}

void price(Plan& plan, const StepModel& model) {
  const ParallelLayout layout = parallel_layout(plan);
  if (const std::string refusal = model.refuse(layout); !refusal.empty()) {
    throw bad_input("layout {}: {}", to_string(layout), refusal);
  }
  Pricing(plan, model, layout).run();
}

Plan make_plan(const StepModel& model, const Network& network, const Cluster& cluster, const ParallelLayout& layout) {
  const TrainingJob& job = model.job();
  Plan plan;
  plan.tool_version = version;
  plan.network = network;
  plan.cluster = cluster;
  plan.batch = {job.global_batch, layout.microbatch, layout.microbatches, job.sequence};
  plan.precision = job.precision;
  plan.optimizer = job.optimizer;
  plan.recompute = layout.recompute;
  plan.fused_attention = job.fused_attention;
  plan.layout = plan_layout_of(layout);
  if (layout.recomputed_layers == listed_layers) plan.layout.recomputed_by_rank = job.recomputed_blocks;
  plan.devices = devices_of(layout);
  plan.order = topological_order(network.graph);
  plan.schedule = make_schedule(name(layout.schedule), {layout.pipeline, layout.virtual_stages, layout.microbatches});
  add_stages(plan, model, layout);
  Pricing(plan, model, layout).run();
  adapt_schedule(plan);
  plan.network_digest = digest(to_json(network).dump());
  plan.cluster_digest = digest(to_json(cluster).dump());
  predict(plan, model.estimate(layout));
  validate(plan, "plan");
  return plan;
}

}  // namespace stagecraft
