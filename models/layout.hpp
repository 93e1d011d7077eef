// One point of the planner's full space: how a training step is spread over devices.
//
// Plain, 64 bytes, cheap to copy and compare. The text form is one line, e.g.
// "p8 v3 t8 d16 b1 m64 interleaved-1f1b sp zero1 selective overlap=gradients,parameters"; print and parse are inverse.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "models/cost/cost.hpp"
#include "models/json_reader.hpp"

namespace stagecraft {

// The synchronous schedules, named as in schedule_kinds(): those that have a closed form (models/cost/
// schedule_forms.hpp), and from hanayo on those that are timed (models/cost/schedule_times.hpp).
enum class PipelineSchedule : std::uint8_t {
  gpipe,
  one_f_one_b,
  eager_one_f_one_b,
  interleaved_one_f_one_b,
  looped_bfs,
  zb_h1,
  zb_h2,
  interleaved_zero_bubble,
  zb_1p,
  zb_2p,
  zb_v,
  v_half,
  v_min,
  chimera,
  dualpipe,
  dualpipe_v,
  hanayo,
  bitpipe,
  seq_one_f_one_b,  // with one slice a micro-batch
  zb_v_auto,
  interleaved_one_f_one_b_torch,
  searched,
};
std::span<const std::pair<std::string_view, PipelineSchedule>> pipeline_schedule_names();
std::string_view name(PipelineSchedule schedule);

// The dimensions that the devices of a job are numbered by. Expert parallelism is no dimension of its own: its groups
// are cut out of the data (and context, and tensor: folds_experts) dimension, as in Megatron-LM.
enum class Dimension : std::uint8_t { tensor, context, data, pipeline };
inline constexpr std::size_t dimension_count = 4;
// Innermost first: neighbours in the first dimension are neighbours on the machine.
using DimensionOrder = std::array<Dimension, dimension_count>;
// From letters such as "tcdp"; empty unless they are a permutation of these.
std::optional<DimensionOrder> parse_order(std::string_view letters);
std::string to_string(const DimensionOrder& order);
inline constexpr DimensionOrder megatron_order = {Dimension::tensor, Dimension::context, Dimension::data,
                                                  Dimension::pipeline};

inline constexpr std::int32_t no_layers = -1;
inline constexpr std::int32_t all_layers = std::numeric_limits<std::int32_t>::max();

struct ParallelLayout {
  std::int32_t pipeline = 1;        // ranks
  std::int32_t virtual_stages = 1;  // stages (model chunks) a rank
  std::int32_t tensor = 1;
  std::int32_t context = 1;
  std::int32_t data = 1;
  std::int32_t expert = 1;        // see folds_experts; 1 for dense networks
  std::int32_t microbatch = 1;    // samples
  std::int32_t microbatches = 1;  // a replica and step: global batch / (data * microbatch)
  // Blocks of the first and the last stage; 0: as even as can be, the middle ones taking what is left over; no_layers:
  // none, only the embedding or the head.
  std::int32_t first_stage_layers = 0;
  std::int32_t last_stage_layers = 0;
  std::int32_t recomputed_layers = all_layers;  // blocks of each rank that recompute; the others keep everything
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  Recompute recompute = Recompute::none;
  // ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054): 1 shards the optimizer's state over the data-parallel ranks
  // (Megatron-LM's distributed optimizer), 2 also the gradients, 3 also the weights (FSDP's full shard).
  std::uint8_t zero = 0;
  bool sequence_parallel = false;    // Korthikanti et al. 2022: norms and dropouts sharded with the tensors
  bool offload_optimizer = false;    // state and update in host memory
  bool offload_activations = false;  // what a micro-batch keeps goes to host memory until its backward
  bool overlap_gradients = false;    // reductions of gradients run behind the backward
  bool overlap_parameters = false;   // gathers of parameters run behind the forward
  bool overlap_tensor = false;       // tensor-parallel communication runs behind pieces of the products
  bool overlap_pipeline = false;     // messages between stages run behind computation
  DimensionOrder order = megatron_order;

  std::int64_t devices() const { return std::int64_t{pipeline} * tensor * context * data; }
  std::int64_t stages() const { return std::int64_t{pipeline} * virtual_stages; }
  bool operator==(const ParallelLayout&) const = default;
};

// Experts are spread over `expert` of the devices with the same blocks, data x context x tensor of them. Where `expert`
// divides data x context, the tensor-parallel devices cut each expert as they cut everything else (Megatron-Core's
// default). Where it does not, they are among those that the experts are spread over, and each expert is whole on its
// device: expert tensor parallelism 1 (parallel folding, Liu et al. 2025, arXiv 2504.14960).
inline bool folds_experts(std::int64_t expert, std::int64_t data_and_context) { return data_and_context % expert != 0; }
inline bool folds_experts(const ParallelLayout& layout) {
  return folds_experts(layout.expert, std::int64_t{layout.data} * layout.context);
}
// Devices that the experts are spread over, one group after the other.
inline std::int64_t expert_devices(const ParallelLayout& layout) {
  return std::int64_t{layout.data} * layout.context * (folds_experts(layout) ? layout.tensor : 1);
}

std::string to_string(const ParallelLayout& layout);
// Throws bad_input naming the word that is not understood.
ParallelLayout parse_layout(std::string_view text);

ParallelLayout layout_from_json(const JsonValue& value);
Json to_json(const ParallelLayout& layout);

}  // namespace stagecraft
