// Where everything that a rank holds lies in its arena on a GPU: known from the plan, before any memory is taken and on
// machines without a GPU. Sizes and offsets are in bytes; every tensor starts at a multiple of 256.
//
//   arena   stages' parameters | slabs, splits, caches of each stage | workspace, shared by the rank's stages
//   slab    a micro-batch (or slice) in flight, from the arrival of its input to its weight gradient
//   split   a micro-batch (or slice) between its input gradient and its weight gradient, where they are separate
//   cache   keys and values of a micro-batch whose slices follow one another
//
// Letters of shapes: N = micro-batch * sequence rows, n of them in the residual stream of the shard, C hidden, A =
// heads * head_size, K = kv_heads * head_size, F ffn, U = F or, for SwiGLU, 2F, V vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/layer_layout.hpp"
#include "runtime/memory_need.hpp"
#include "runtime/parameters.hpp"
#include "runtime/stage_spec.hpp"

namespace stagecraft::cuda {

// One trained tensor of a stage. Its offsets are in elements and the same in all slabs of parameters: masters (float),
// weights (T; masters serve where T is float), gradients (float), optimizer state (float).
struct ParameterEntry {
  Parameter parameter;
  std::int64_t offset = 0;
  std::int64_t elements = 0;  // with the padding of a token table
  bool copy = false;          // of a table that another rank owns
};

// Layers [first, last) of a stage.
struct LayerSpan {
  std::size_t first = 0, last = 0;
  auto operator<=>(const LayerSpan&) const = default;
};

// Layers whose gradients are summed over replicas in one go, from some megabytes on: the embedding by itself, for its
// table may be another stage's, too; then blocks from the first to the last, with the head; by itself the copy of a
// tied table. With a sharded optimizer (ZeRO 1) each of the replicas keeps the state of an equal share.
struct Bucket {
  LayerSpan layers;                       // none for a copy
  std::int64_t offset = 0, elements = 0;  // in all slabs of parameters; shares are multiples of 64 elements
  std::int64_t share = 0;                 // elements of one replica; all of them where nothing is sharded
  std::int64_t state_offset = 0;          // of the share, in slabs of state
  bool is_sharded() const { return share < elements; }
};
inline constexpr std::int64_t bucket_elements = 4 << 20;  // at least, except where there are not as many

// How many replicas share the optimizer's state: 1 where each has all of it.
int state_shards(const Plan& plan);

struct StageLayout {
  struct Layer {
    bool recomputed = false;
    // Offsets into the slab; the embedding has no input, recomputed layers no stash.
    std::int64_t input = -1, stash = -1;
    // Offsets into the split. The last layer's d_output is the slab's.
    std::int64_t d_output = -1, gradients = -1, recomputed_stash = -1;
    std::int64_t cache = -1;  // offset into the cache
    std::int64_t stash_bytes = 0, gradient_bytes = 0, scratch_bytes = 0, cache_bytes = 0;
    std::size_t first_parameter = 0, parameters = 0;  // entries
  };
  std::vector<ParameterEntry> entries;  // owned ones first, then the copy of a tied table
  std::vector<Bucket> buckets;          // by offset
  std::int64_t elements = 0;            // of each slab of parameters
  std::int64_t owned_elements = 0;      // of those, at the front: without the copy
  std::int64_t state_elements = 0;      // of each slab of state: one share of every bucket
  std::vector<Layer> layers;
  std::int64_t boundary = 0;  // the tensor between two stages, bytes
  std::int64_t slab_bytes = 0, split_bytes = 0, cache_bytes = 0;
  std::int64_t tokens = -1, targets = -1;   // (N) int32, offsets into the slab
  std::int64_t output = -1, d_output = -1;  // (N, C) T, offsets into the slab; the last stage has none
  // In the workspace.
  std::int64_t gradient_bytes = 0, recomputed_bytes = 0, scratch_bytes = 0;  // largest of the layers
};
// With `shared_table` the table of a tied head is that of another stage of the rank.
StageLayout lay_out_stage(const StageSpec& spec, bool shared_table, int shards = 1);

// The token table, owned or a copy; null where the stage has none.
const ParameterEntry* token_table_of(const StageLayout& layout);

// Elements [first, last) of a tensor whose state a replica keeps, and where the first is in the slabs of state. Empty
// where it keeps none.
struct KeptElements {
  std::int64_t first = 0, last = 0;
  std::int64_t state = 0;
};
KeptElements kept_elements(const StageLayout& layout, const ParameterEntry& entry, int replica);

// Where the owned tensors lie that `wanted(parameter)` says yes to, neighbours together; elements [first, last) of a
// slab of parameters.
struct ElementRange {
  std::int64_t first = 0, last = 0;
};
template <class Wanted>
std::vector<ElementRange> ranges_of(const StageLayout& layout, Wanted&& wanted) {
  std::vector<ElementRange> ranges;
  bool neighbour = false;
  for (const ParameterEntry& entry : layout.entries) {
    const bool takes = !entry.copy && wanted(entry.parameter);
    if (takes && !neighbour) ranges.push_back({entry.offset, 0});
    if (takes) ranges.back().last = entry.offset + entry.elements;
    neighbour = takes;
  }
  return ranges;
}

// What one layer holds while a micro-batch is in flight and during a call, without its parameters.
std::int64_t layer_stash_bytes(const StageLayout& layout, std::size_t layer);
// Between its input and its weight gradient, where they are two actions.
std::int64_t layer_split_bytes(const StageLayout& layout, std::size_t layer);
std::int64_t layer_workspace_bytes(const StageLayout& layout, std::size_t layer);

// What an action of the rank's list works on, fixed for all steps.
struct Place {
  int slab = -1;           // of the action's stage
  int split = -1;          // of the action's stage, for I and W
  int cache = -1;          // of the action's stage, with slices
  int slice = 0;           // of the sample
  int next_slab = -1;      // of the next stage, for a forward whose output stays on the rank
  int previous_slab = -1;  // of the previous stage, for a backward whose gradient stays on the rank
  int outbox = -1;         // which buffer of gradients to be sent, for a backward whose gradient leaves the rank
  bool inbox = false;      // for a RECV_F and its forward: the output waits in the inbox, not in the slab
  bool first = false;      // the stage's first weight gradient of a step: it replaces what is there
  auto operator<=>(const Place&) const = default;
};
inline constexpr int outboxes = 2;
inline constexpr int message_buffers = outboxes + 1;  // and an inbox

// A tensor in the optimizer's list.
inline constexpr std::int64_t tensor_record_bytes = 64;

// A sum over ranks of one bucket's gradients, or of the table that two stages share.
struct Reduction {
  std::size_t action = 0;             // of the rank's list: REDUCE_GRAD or REDUCE_TIED
  std::vector<int> members;           // workers
  bool over_nccl = false;             // else by peer copies
  std::size_t bucket = 0;             // of the action's stage; of REDUCE_TIED the one with the table
  std::optional<std::size_t> during;  // the computation that completes the gradients, where the sum starts at once;
                                      // else it starts when a STEP first waits
};

// What a step counts on the device.
struct StepState {
  double loss_sum = 0;  // of the micro-batches' mean losses
  // Of the rank's TokenFeed, so far: the next ones' positions.
  std::int32_t tokens_taken = 0, targets_taken = 0;
};

struct RankLayout {
  struct Stage {
    int number = 0;
    StageSpec spec;
    StageLayout layout;
    std::vector<HeldParameter> held;  // by entry
    int slabs = 0, splits = 0, caches = 0;
    bool counted = true;            // in the norm of the gradient: a stage on two ranks is on the first of them
    std::int64_t first_tensor = 0;  // in the optimizer's list
    // Offsets into the arena.
    std::int64_t masters = 0, weights = 0, gradients = 0;
    std::vector<std::int64_t> states;
    bool has_masters() const { return spec.precision == DataType::bf16; }  // else the weights are
    std::int64_t first_slab = 0, first_split = 0, first_cache = 0;
  };
  std::vector<Stage> stages;        // by number
  std::vector<Place> places;        // by action
  std::vector<std::string> labels;  // by action, for tools
  MemoryNeed need;                  // by purpose; the total is the arena
  // Offsets into the arena.
  std::int64_t ping = 0, pong = 0, layer_gradients = 0, recomputed = 0, scratch = 0, outbox = 0, inbox = 0,
               rope_table = 0, step_state = 0, gemm_workspace = 0, scalars = 0, tensors = 0, exchange = 0;
  std::int64_t exchange_bytes = 0;  // for sums over ranks
  std::int64_t arena_bytes = 0;
  // For the executor, not laid out here.
  std::vector<float> rope_values;     // (T, D) of rope.hpp
  std::vector<Reduction> reductions;  // reduction_order.hpp
};
// Of a shard of the rank; the first one's is the largest. REQUIRES: a runnable plan.
RankLayout lay_out_rank(const Plan& plan, const LoweredSchedule& schedule, int rank, int shard = 0,
                        bool deterministic = false);

}  // namespace stagecraft::cuda
