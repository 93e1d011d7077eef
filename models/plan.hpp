// The plan: who computes what, when. The planner writes it, the simulators and the runtime execute it.
//
// Self-contained: it embeds network, cluster, schedule and the stage costs it was made with, so it can be mailed to
// someone and run there. JSON format: docs/file_formats.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/cost/cost.hpp"
#include "models/network/network.hpp"
#include "models/plan_layout.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {

// Positions in Plan::order, [first, last).
struct LayerRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const LayerRange&) const = default;
};

struct Batch {
  std::int64_t global = 1;        // samples a step: microbatch * microbatches * replicas
  std::int64_t microbatch = 1;    // samples
  std::int64_t microbatches = 1;  // a replica
  std::int64_t sequence = 1;      // tokens a sample
  bool operator==(const Batch&) const = default;
};

struct PlanStage {
  LayerRange layers;
  RankId rank;  // which pipeline rank runs it, the same in every replica
  // On its device, of one shard where several devices share a rank; what simulators execute. With token slices: the
  // mean slice.
  StageCost cost;
  std::optional<RankId> second_rank;  // the other rank that runs it, above `rank`, in bidirectional schedules
  bool on(RankId which) const { return rank == which || second_rank == which; }
  bool operator==(const PlanStage&) const = default;
};

// What the planner expects of one step. Empty rungs were not evaluated.
struct Prediction {
  std::optional<Seconds> closed_form_step;
  std::optional<Seconds> timeline_step;
  std::optional<Seconds> simgrid_step;
  double bubble = 0;               // idle share of the ranks' time from the first forward to the last backward
  std::vector<Bytes> peak_memory;  // by pipeline rank
  bool operator==(const Prediction&) const = default;
};

struct Plan {
  std::string tool_version;
  Network network;
  Cluster cluster;
  Batch batch;
  DataType precision = DataType::bf16;
  Optimizer optimizer = Optimizer::adamw;
  Recompute recompute = Recompute::none;
  bool fused_attention = false;
  std::vector<LayerId> order;     // of the network's layers: stages are ranges of it
  std::vector<PlanStage> stages;  // by StageId
  PlanLayout layout;              // how the devices of a rank share its work
  // [replica * shards + shard][rank]. The shards of a rank work on the same micro-batch at the same time; shard
  // c * tensor + t has slice c of the sequence and slice t of every layer. One shard: a row a replica.
  std::vector<std::vector<DeviceId>> devices;
  ComputeSchedule schedule;  // of one replica; all replicas run the same
  Prediction prediction;
  std::string network_digest, cluster_digest, profile_digest;  // of the inputs; the last empty without a profile

  int shards() const { return layout.shards(); }
  int replicas() const { return static_cast<int>(devices.size()) / shards(); }
  int ranks() const { return devices.empty() ? 0 : static_cast<int>(devices.front().size()); }
  Workload workload() const {
    Workload workload{batch.microbatch, batch.sequence, precision, optimizer, recompute, fused_attention};
    workload.microbatches = batch.microbatches;
    return workload;
  }
  int devices_used() const;  // those of groups counted
  // Whether the first and the last stage share a table and sit on different ranks, so that REDUCE_TIED is needed.
  bool tied_ends() const;
  // The schedule with communication; what executors run.
  LoweredSchedule lowered() const;
};

// Prices every stage on its device (the first replica's), boundaries from the network's cuts. `loads`: Workload::load,
// by stage; empty: 1. Throws bad_input when the model knows nothing of a layer or device, and for plans whose ranks are
// sharded but for ZeRO 1, which models of whole layers cannot price (models/cost/step_model.hpp does). REQUIRES: a
// validated plan.
void price(Plan& plan, const CostModel& model, std::span<const Load> loads = {});

// Whether every stage has a cost: hand-written plans may leave costs out, and are priced before they are simulated.
bool is_priced(const Plan& plan);

// Plan::devices of a layout whose devices are numbered from 0 in its order of dimensions.
std::vector<std::vector<DeviceId>> devices_of(const ParallelLayout& layout);
// The order of dimensions that a plan's devices are numbered by, Megatron-LM's before others; empty: they follow none.
std::optional<DimensionOrder> dimension_order(const Plan& plan);
// Whether experts are spread over tensor-parallel devices, too (layout.hpp).
bool folds_experts(const Plan& plan);
// The point of the planner's space that the plan is; blocks a stage as in the first and last ones, and Megatron-LM's
// order where the devices follow none. Throws bad_input for a schedule that is no PipelineSchedule.
ParallelLayout parallel_layout(const Plan& plan);

// Throws bad_input naming the first fault: stages that overlap or leave gaps, an order that breaks an edge, shards that
// the network does not divide into, devices that do not exist or are used twice, a batch that does not multiply out, a
// schedule that fails the checker.
void validate(const Plan& plan, const std::string& file);

Plan plan_from_json(const JsonValue& value);  // validated
Json to_json(const Plan& plan);
Plan load_plan(const std::filesystem::path& path);
void save_plan(const Plan& plan, const std::filesystem::path& path);

}  // namespace stagecraft
