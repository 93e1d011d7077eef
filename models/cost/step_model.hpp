// Predicts time and memory of a training step under any ParallelLayout, by closed forms.
//
// Two halves, so that a search pays for each thing once:
//   shard(layout)              what one block, the embedding and the head cost on one device: a function of the network
//                              and of what same_shard() compares: tensor, context, expert, micro-batch, places, flags
//   estimate(layout, shard)    the whole step from those: a few hundred floating-point operations, no allocation; with
//                              a timed schedule also that schedule, played once for each shape and ratio of times
// Same input, same numbers; thread-safe. Formulas and sources: docs/cost_model.md; errors against measurements:
// docs/validation.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "models/cost/machine.hpp"
#include "models/cost/memory.hpp"
#include "models/cost/schedule_times.hpp"
#include "models/cost/shard.hpp"
#include "models/layout.hpp"

namespace stagecraft {

// Where a step's time goes, on the rank that decides; seconds. Communication counts where nothing hides it.
struct StepTerms {
  double compute = 0;
  double recompute = 0;
  double bubble = 0;
  double tensor = 0;
  double pipeline = 0;
  double data = 0;
  double context = 0;
  double expert = 0;
  double optimizer = 0;
  double other = 0;
  double data_once = 0;  // of data, what is exchanged once a step; the rest for every micro-batch
  double total() const {
    return compute + recompute + bubble + tensor + pipeline + data + context + expert + optimizer + other;
  }
};

// What one device of a pipeline rank holds at its peak; bytes.
struct StageMemory {
  double weights = 0;
  double gradients = 0;
  double optimizer_state = 0;
  double activations = 0;
  double workspace = 0;
  double reserved = 0;
  double total() const { return weights + gradients + optimizer_state + activations + workspace + reserved; }
};

// What replicas exchange, as far as it shows; seconds.
struct ReplicaTime {
  double once = 0;  // a step
  // For every micro-batch and stage, beside its forward and its backward.
  double forward = 0;
  double backward = 0;
};

struct StepEstimate {
  StepTerms terms;
  Seconds time;
  StageMemory memory;  // of the fullest rank
  std::int32_t worst_rank = 0;
  bool fits = false;
};

class LayerSplit;
struct Ranks;

class StepModel {
 public:
  // REQUIRES: a transformer that passed network_from_json; at least one network level.
  StepModel(TrainingJob job, Machine machine);

  // Why this layout cannot be run, naming the numbers that clash; empty when it can. Memory is not looked at.
  std::string refuse(const ParallelLayout& layout) const;

  // REQUIRES of all below: a layout that refuse() accepts.
  Shard shard(const ParallelLayout& layout) const;
  StepEstimate estimate(const ParallelLayout& layout) const { return estimate(layout, shard(layout)); }
  // REQUIRES: `shard` of a layout of which same_shard() says so.
  StepEstimate estimate(const ParallelLayout& layout, const Shard& shard) const;
  // The same, but with a timed schedule (is_timed) as if no rank ever waited: no more than the estimate, and quick.
  StepEstimate least_estimate(const ParallelLayout& layout, const Shard& shard) const;

  // Of pipeline rank `rank`, 0 .. pipeline-1; with these blocks, or its own.
  StageMemory memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank,
                     const RankBlocks& blocks) const;
  StageMemory memory(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const;
  // Blocks on the rank, those of them that are dense ones of a mixture of experts, and those that recompute.
  std::int64_t layers_of(const ParallelLayout& layout, std::int32_t rank) const;
  std::int64_t dense_layers_of(const ParallelLayout& layout, std::int32_t rank) const;
  std::int64_t recomputed_of(const ParallelLayout& layout, const Shard& shard, std::int32_t rank) const;

  // Of a rank with so many parameters, experts' apart, whose stages are alike and take together `forward` and
  // `backward` seconds a micro-batch: what overlapped communication hides behind.
  ReplicaTime replica_time(const ParallelLayout& layout, double parameters, double expert_parameters, double forward,
                           double backward) const;
  // Seconds that a rank with so many parameters takes to update them, experts' apart.
  double optimizer_time(const ParallelLayout& layout, double parameters, double expert_parameters) const;

  // Model FLOPs of a step (forward and backward, no recomputation) over what the devices could do in `time`.
  double mfu(Seconds time, std::int64_t devices) const;

  const TrainingJob& job() const { return job_; }
  const Machine& machine() const { return machine_; }

 private:
  enum class Waiting { counted, of_forms };  // of timed schedules, too, or only of those that have a closed form
  StepEstimate estimate(const ParallelLayout& layout, const Shard& shard, Waiting waiting) const;
  StepTerms terms(const ParallelLayout& layout, const Shard& shard, const Ranks& ranks, Waiting waiting) const;
  // Of a rank with so many blocks, and so many dense ones.
  std::int64_t recomputed_of(const ParallelLayout& layout, const Shard& shard, std::int32_t rank, std::int64_t layers,
                             double dense) const;
  double bubble(const ParallelLayout& layout, const StageWork& stage, Waiting waiting) const;
  // Parameters of a rank, experts' apart: the most that a rank has of each.
  std::pair<double, double> most_parameters(const LayerSplit& split, const ParallelLayout& layout,
                                            const Shard& shard) const;
  void add_pipeline(const ParallelLayout& layout, const Shard& shard, double repeated, double slowest, Waiting waiting,
                    StepTerms& terms) const;
  double replica_bubble(const ParallelLayout& layout, const Shard& shard, Waiting waiting) const;
  void find_fullest(const ParallelLayout& layout, const Shard& shard, const Ranks& ranks, StepEstimate& estimate) const;

  TrainingJob job_;
  Machine machine_;
  double element_ = 2;  // bytes of an activation
  ParameterBytes parameter_bytes_;
  double model_flops_ = 0;  // of a step
  std::unique_ptr<ScheduleTimes> times_ = std::make_unique<ScheduleTimes>();
};

}  // namespace stagecraft
