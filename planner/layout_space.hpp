// The full space of layouts: every way to spread a transformer over like devices that the step model can judge.
//
// Nested as the search walks it, from what decides most to what decides least:
//   widths       tensor, context, expert, pipeline and data parallel widths
//   batch        micro-batch, sequence parallelism, order of the dimensions over the network: what a Shard depends on
//   shape        stages a rank, schedule, blocks of the first and last stage
//   tactics      ZeRO, offloading, overlap, recomputation
// Schedules are those whose closed form is their makespan, unless one is named (has_exact_form); one that is timed has
// no layout on one rank.
// A point is listed once: flags without effect (overlapped gradients of one replica) stay off, orders that place the
// same devices side by side count once, and "all blocks recompute" is one point.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "models/cost/constants.hpp"
#include "models/cost/step_model.hpp"
#include "models/layout.hpp"
#include "models/recomputed_layers.hpp"

namespace stagecraft {

// What the caller has fixed; what is empty is searched.
struct LayoutChoices {
  std::int64_t devices = 1;  // use at most so many
  bool use_all = false;      // and no fewer
  std::optional<std::int32_t> tensor, context, expert, pipeline, data;
  std::optional<std::int32_t> virtual_stages, stages;  // stages = pipeline * virtual_stages
  std::optional<std::int32_t> microbatch;              // samples
  std::optional<PipelineSchedule> schedule;
  // Also schedules whose closed form is the span of the longest rank: the step takes that long when ranks begin the
  // next one without waiting for the others, which rules out a gradient norm over all of them.
  bool staggered_steps = false;
  std::optional<bool> sequence_parallel;
  std::optional<std::int32_t> zero;
  std::optional<Recompute> recompute;
  std::optional<std::int32_t> recomputed_layers;  // blocks of each rank, fewest_layers or listed_layers
  // Blocks of the end stages of a pipeline with one stage a rank; no_layers: none.
  std::optional<std::int32_t> first_stage_layers, last_stage_layers;
  std::optional<bool> offload_optimizer, offload_activations;
  std::optional<bool> overlap_gradients, overlap_parameters, overlap_tensor, overlap_pipeline;
  std::optional<DimensionOrder> order;
  // Only what a framework runs; the rest is left out. Of those that recompute: all blocks, unless recomputed_layers
  // says another number; of tensor parallelism: with sequence parallelism, unless the caller says without.
  std::optional<Abilities> abilities;
};

struct Widths {
  std::int32_t tensor = 1, context = 1, expert = 1, pipeline = 1, data = 1;
  std::int64_t devices() const { return std::int64_t{tensor} * context * pipeline * data; }
  bool folds_experts() const { return stagecraft::folds_experts(expert, std::int64_t{data} * context); }
  bool operator==(const Widths&) const = default;
};

// Stages a rank, schedule, and blocks of the end stages (0: as even as can be).
struct PipelineShape {
  std::int32_t virtual_stages = 1;
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  std::int32_t first = 0, last = 0;
};

// Whether the closed form of the schedule is its makespan with equal stages and free messages.
bool has_exact_form(PipelineSchedule schedule, std::int32_t ranks, std::int64_t microbatches);

// ZeRO stage and offloading; overlap flags are on wherever they have an effect unless the caller forbids it.
struct Residence {
  std::uint8_t zero = 0;
  bool offload_optimizer = false, offload_activations = false;
};

// What sequence parallelism shards a sample into.
inline std::int64_t sequence_pieces(const Widths& widths) {
  return std::int64_t{widths.context} * (widths.context > 1 ? 2 : 1) * widths.tensor;
}

// Blocks that recompute: `layers` of them on a rank in `mode`, or fewest_layers; mode none: 0.
struct Recomputation {
  Recompute mode = Recompute::none;
  std::int32_t layers = 0;
};

class LayoutSpace {
 public:
  // Throws bad_input naming choices that no layout can meet. `model` is used, not owned; what its job places by hand
  // fixes the number of stages or ranks.
  LayoutSpace(const StepModel& model, LayoutChoices choices);

  const StepModel& model() const { return *model_; }
  const LayoutChoices& choices() const { return choices_; }

  // Every legal combination, in a fixed order.
  const std::vector<Widths>& widths() const { return widths_; }
  // By position in widths(): points below.
  const std::vector<std::int64_t>& points_by_widths() const { return points_; }
  // Samples, rising; data * microbatch divides the global batch.
  std::span<const std::int32_t> microbatches_of(const Widths& widths) const;
  std::vector<bool> sequence_parallel(const Widths& widths) const;
  // Orders that differ in which devices are neighbours.
  std::vector<DimensionOrder> orders(const Widths& widths) const;
  // Legal ones for so many ranks and micro-batches. REQUIRES: both occur in the space.
  const std::vector<PipelineShape>& shapes(std::int32_t pipeline, std::int64_t microbatches) const;
  std::vector<Residence> residences(const Widths& widths) const;
  // Most blocks that a rank holds.
  std::int32_t most_layers(std::int32_t pipeline, const PipelineShape& shape) const;
  // In the order of rising layers, mode by mode, and behind them as few layers as each rank needs, where there are
  // several ranks. `layers`: most_layers(). Offloaded activations go with no recomputation or with that of all blocks:
  // with some of them, the others' would have to pass through the device.
  std::vector<Recomputation> recomputations(const Widths& widths, std::int32_t layers, bool offload_activations) const;
  // Settings of the overlap flags that the space has for this point, all on first.
  std::vector<ParallelLayout> overlaps(const ParallelLayout& layout) const;
  std::int64_t overlap_count(const Widths& widths, const Residence& residence) const;

  // A layout with everything but shape, residence and recomputation.
  ParallelLayout base(const Widths& widths, std::int32_t microbatch, bool sequence_parallel,
                      const DimensionOrder& order) const;
  static void apply(const PipelineShape& shape, ParallelLayout& layout);
  static void apply(const Residence& residence, ParallelLayout& layout);
  static void apply(const Recomputation& recomputation, ParallelLayout& layout);
  // Turns on every overlap that has an effect and is not forbidden.
  void overlap_all(ParallelLayout& layout) const;

  // Points of the whole space; below widths with a micro-batch, one setting of sequence parallelism and order; and
  // below one shape there.
  std::int64_t points() const;
  std::int64_t points(const Widths& widths, std::int32_t microbatch) const;
  std::int64_t points(const Widths& widths, const PipelineShape& shape) const;

 private:
  void list_widths();
  void list_microbatches();
  void list_shapes();
  // Blocks of the end stages, of one stage a rank.
  std::vector<PipelineShape> list_ends(std::int32_t ranks) const;
  // Throws where the framework cannot do what the caller asks for.
  void check_abilities() const;
  // Why no layout has these widths, on their own; throws.
  [[noreturn]] void explain_nothing() const;
  // What of it lies in stages, recomputation or sequence parallelism; returns where nothing does.
  void explain_stages() const;
  void explain_ends() const;
  void explain_recomputation() const;
  void explain_sequence_parallel() const;
  std::int64_t placements(const Widths& widths) const;
  // Residences, overlaps and recomputations, for each number of blocks on the fullest rank.
  std::int64_t tactics(const Widths& widths, std::int32_t layers) const;
  std::int64_t recomputation_count(const Widths& widths, std::int32_t layers, bool offload_activations) const;

  const StepModel* model_;
  LayoutChoices choices_;
  std::vector<Widths> widths_;
  std::map<std::int32_t, std::vector<std::int32_t>> microbatches_;  // by data-parallel width
  struct Shapes {
    std::vector<PipelineShape> list;
    std::map<std::int32_t, std::int64_t> by_layers;  // how many whose fullest rank holds so many blocks
  };
  std::map<std::pair<std::int32_t, std::int64_t>, Shapes> shapes_;  // by ranks and micro-batches
  std::vector<std::int64_t> points_;                                // by widths
};

}  // namespace stagecraft
