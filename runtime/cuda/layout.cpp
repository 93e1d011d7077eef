#include "runtime/cuda/layout.hpp"

#include <algorithm>
#include <cassert>
#include <map>
#include <optional>

namespace stagecraft::cuda {
namespace {

constexpr std::int64_t gemm_workspace_bytes = 32 << 20;
constexpr std::int64_t scalar_bytes = 16 << 10;  // norms, learning rates

constexpr std::int64_t exchange_bytes = 32 << 20;
constexpr std::int64_t tensor_elements = 64;  // parameters start at multiples of this

void add_entry(StageLayout& layout, const Transformer& t, Parameter parameter, bool copy) {
  ParameterEntry entry;
  entry.offset = layout.elements;
  entry.elements = parameter.count();
  const bool table = parameter.name == token_table || parameter.name == "head.projection.weight";
  if (table) entry.elements = padded_vocabulary(t) * t.hidden;
  entry.copy = copy;
  entry.parameter = std::move(parameter);
  layout.elements += (entry.elements + tensor_elements - 1) / tensor_elements * tensor_elements;
  layout.entries.push_back(std::move(entry));
}

// Makes a bucket of the elements from `bucket.offset` on, so that equal shares of it begin where tensors may.
void close_bucket(StageLayout& layout, Bucket bucket, int shards) {
  const std::int64_t multiple = tensor_elements * shards;
  bucket.elements = (layout.elements - bucket.offset + multiple - 1) / multiple * multiple;
  bucket.share = bucket.elements / shards;
  bucket.state_offset = layout.state_elements;
  layout.elements = bucket.offset + bucket.elements;
  layout.state_elements += bucket.share;
  layout.buckets.push_back(bucket);
}

// After a layer was added; `last` of the stage. A bucket ends where it is large enough; the embedding is one by itself.
void end_layer(StageLayout& layout, Bucket& open, bool last, int shards) {
  const auto is_embedding = [&](std::size_t layer) { return layout.layers[layer].input < 0; };
  open.layers.last = layout.layers.size();
  const bool small = layout.elements - open.offset < bucket_elements && !is_embedding(open.layers.first);
  if (small && !last) return;
  if (small && !layout.buckets.empty() && !is_embedding(layout.buckets.back().layers.first)) {
    // What is left joins the blocks before it.
    const Bucket before = layout.buckets.back();
    layout.buckets.pop_back();
    layout.state_elements = before.state_offset;
    open.layers.first = before.layers.first;
    open.offset = before.offset;
  }
  close_bucket(layout, open, shards);
  open = {.layers = {layout.layers.size(), layout.layers.size()}, .offset = layout.elements};
}

StageLayout::Layer size_layer(const StageSpec& spec, std::int64_t id) {
  StageLayout::Layer layer;
  if (id == 0) {
    layer.scratch_bytes = lay_out_embedding(spec).scratch_bytes;
  } else if (id == spec.transformer.layers + 1) {
    const HeadLayout head = lay_out_head(spec);
    layer.stash_bytes = head.stash_bytes, layer.gradient_bytes = head.gradient_bytes;
    layer.scratch_bytes = head.scratch_bytes;
  } else {
    const BlockLayout block = lay_out_block(spec);
    layer.stash_bytes = block.stash_bytes, layer.gradient_bytes = block.gradient_bytes;
    layer.scratch_bytes = block.scratch_bytes, layer.cache_bytes = block.cache_bytes;
    layer.recomputed = spec.recompute == Recompute::full;
  }
  return layer;
}

}  // namespace

int state_shards(const Plan& plan) { return plan.layout.zero > 0 ? plan.replicas() : 1; }

StageLayout lay_out_stage(const StageSpec& spec, bool shared_table, int shards) {
  const Transformer& t = spec.transformer;
  const std::int64_t rows = spec.shape.rows();
  StageLayout layout;
  layout.boundary = aligned(spec.own_rows() * t.hidden * element_bytes(spec));
  Carver slab, split, cache;
  Bucket bucket;
  if (spec.has_embedding()) layout.tokens = slab.take(rows * 4);
  if (spec.has_head()) layout.targets = slab.take(rows * 4);
  for (std::int64_t id = spec.layers.first; id < spec.layers.last; ++id) {
    StageLayout::Layer layer = size_layer(spec, id);
    layer.first_parameter = layout.entries.size();
    for (Parameter& parameter : layer_parameters(t, id)) add_entry(layout, t, std::move(parameter), false);
    layer.parameters = layout.entries.size() - layer.first_parameter;
    if (id > 0) layer.input = slab.take(layout.boundary);
    if (id + 1 < spec.layers.last) layer.d_output = split.take(layout.boundary);
    layer.gradients = split.take(layer.gradient_bytes);
    layer.cache = cache.take(layer.cache_bytes);
    (layer.recomputed ? layer.recomputed_stash : layer.stash) =
        (layer.recomputed ? split : slab).take(layer.stash_bytes);
    layout.gradient_bytes = std::max(layout.gradient_bytes, layer.gradient_bytes);
    layout.scratch_bytes = std::max(layout.scratch_bytes, layer.scratch_bytes);
    if (layer.recomputed) layout.recomputed_bytes = std::max(layout.recomputed_bytes, layer.stash_bytes);
    layout.layers.push_back(layer);
    end_layer(layout, bucket, id + 1 == spec.layers.last, shards);
  }
  layout.owned_elements = layout.elements;
  if (!spec.has_head()) {
    // Its gradient comes after the next stage has fetched it.
    layout.output = layout.d_output = slab.take(layout.boundary);
  }
  if (spec.has_head() && t.tied_head && !spec.has_embedding() && !shared_table) {
    add_entry(layout, t, layer_parameters(t, 0).front(), true);
    close_bucket(layout, bucket, shards);
  }
  layout.slab_bytes = slab.size(), layout.split_bytes = split.size(), layout.cache_bytes = cache.size();
  return layout;
}

std::int64_t layer_stash_bytes(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  return (at.input >= 0 ? layout.boundary : 0) + (at.recomputed ? 0 : at.stash_bytes);
}

std::int64_t layer_split_bytes(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  return (at.d_output >= 0 ? layout.boundary : 0) + at.gradient_bytes + (at.recomputed ? at.stash_bytes : 0);
}

std::int64_t layer_workspace_bytes(const StageLayout& layout, std::size_t layer) {
  const StageLayout::Layer& at = layout.layers[layer];
  return 2 * layout.boundary + at.gradient_bytes + at.scratch_bytes + (at.recomputed ? at.stash_bytes : 0) +
         gemm_workspace_bytes + scalar_bytes + exchange_bytes;
}

namespace {

// Hands out the lowest number that is free.
class Slots {
 public:
  int take(std::int64_t microbatch) {
    const auto free = std::find(taken_.begin(), taken_.end(), -1);
    const auto slot = static_cast<int>(free - taken_.begin());
    if (free == taken_.end()) taken_.push_back(-1);
    taken_[static_cast<std::size_t>(slot)] = microbatch;
    return slot;
  }
  int find(std::int64_t microbatch) const {
    const auto found = std::find(taken_.begin(), taken_.end(), microbatch);
    assert(found != taken_.end());
    return static_cast<int>(found - taken_.begin());
  }
  void release(std::int64_t microbatch) { taken_[static_cast<std::size_t>(find(microbatch))] = -1; }
  int most() const { return static_cast<int>(taken_.size()); }

 private:
  std::vector<std::int64_t> taken_;  // micro-batch by slot, -1: free
};

// Walks through the rank's list as the executor will, and numbers what it takes.
class Walk {
 public:
  Walk(const Plan& plan, const LoweredSchedule& schedule, int rank)
      : plan_(plan), placement_(plan.schedule), actions_(schedule.ranks[static_cast<std::size_t>(rank)]), rank_(rank) {}

  std::vector<Place> places() {
    std::vector<Place> places;
    places.reserve(actions_.size());
    for (const Action& action : actions_) places.push_back(place(action));
    return places;
  }
  int slabs(int stage) { return slabs_[stage].most(); }
  int splits(int stage) { return splits_[stage].most(); }
  int caches(int stage) { return caches_[stage].most(); }

 private:
  bool here(int stage, MicrobatchId microbatch) const {
    return stage >= 0 && stage < placement_.stages() && placement_.rank(StageId{stage}, microbatch).value == rank_;
  }

  Place place(const Action& action) {
    const int stage = action.stage.value;
    const std::int64_t m = action.microbatch.value;
    Place place;
    switch (action.kind) {
      case ActionKind::recv_forward:
        place.slab = slabs_[stage].take(m);
        place.inbox = take_inbox(action, place.slab);
        break;
      case ActionKind::forward:
        ++computations_;
        place.slab = stage == 0 ? slabs_[stage].take(m) : slabs_[stage].find(m);
        place.inbox = in_inbox_ == std::pair(stage, m);
        if (place.inbox) in_inbox_.reset();
        place_cache(action, place);
        if (here(stage + 1, action.microbatch)) place.next_slab = slabs_[stage + 1].take(m);
        if (plan_.schedule.forward_only && !sends_output(stage, place)) release_slab(stage, m);
        break;
      case ActionKind::send_forward:
        place.slab = slabs_[stage].find(m);
        if (plan_.schedule.forward_only) release_slab(stage, m);
        break;
      case ActionKind::recv_backward:
        place.slab = slabs_[stage].find(m);
        break;
      case ActionKind::backward:
      case ActionKind::backward_input:
      case ActionKind::backward_weight:
        ++computations_;
        place_backward(action, place);
        break;
      case ActionKind::send_backward:
        place.outbox = last_outbox_;
        break;
      default:
        break;
    }
    return place;
  }

  void release_slab(int stage, std::int64_t m) {
    left_[{stage, slabs_[stage].find(m)}] = computations_;
    slabs_[stage].release(m);
  }

  // Into a slab that the last computation only leaves an output could come no earlier than the device would be idle.
  bool take_inbox(const Action& recv_forward, int slab) {
    const auto left = left_.find({recv_forward.stage.value, slab});
    if (in_inbox_ || left == left_.end() || left->second != computations_) return false;
    in_inbox_ = {recv_forward.stage.value, recv_forward.microbatch.value};
    return true;
  }

  bool sends_output(int stage, const Place& forward) const {
    return forward.next_slab < 0 && stage + 1 < placement_.stages();
  }

  // Which slice, and the cache of its micro-batch from the first slice's forward to its input gradient.
  void place_cache(const Action& action, Place& place) {
    const int slices = plan_.schedule.slices;
    if (slices == 1) return;
    Slots& caches = caches_[action.stage.value];
    const std::int64_t microbatch = action.microbatch.value / slices;
    const bool forward = action.kind == ActionKind::forward;
    place.slice = action.microbatch.value % slices;
    if (action.kind == ActionKind::backward_weight) return;
    place.cache = forward && place.slice == 0 ? caches.take(microbatch) : caches.find(microbatch);
    if (!forward && place.slice == 0) caches.release(microbatch);
  }

  void place_backward(const Action& action, Place& place) {
    const int stage = action.stage.value;
    const std::int64_t m = action.microbatch.value;
    place.slab = slabs_[stage].find(m);
    place_cache(action, place);
    if (action.kind == ActionKind::backward_input) place.split = splits_[stage].take(m);
    if (action.kind == ActionKind::backward_weight) place.split = splits_[stage].find(m);
    if (action.kind != ActionKind::backward_weight && stage > 0) {
      if (here(stage - 1, action.microbatch)) {
        place.previous_slab = slabs_[stage - 1].find(m);
      } else {
        place.outbox = last_outbox_ = (last_outbox_ + 1) % outboxes;
      }
    }
    if (action.kind != ActionKind::backward_input) place.first = !started_[stage];
    if (action.kind == ActionKind::backward_input) return;
    started_[stage] = true;
    release_slab(stage, m);
    if (action.kind == ActionKind::backward_weight) splits_[stage].release(m);
  }

  const Plan& plan_;
  Placement placement_;
  const std::vector<Action>& actions_;
  int rank_;
  std::map<int, Slots> slabs_, splits_, caches_;
  std::map<int, bool> started_;
  int last_outbox_ = outboxes - 1;
  int computations_ = 0;                                  // so far
  std::map<std::pair<int, int>, int> left_;               // by stage and slab: after how many computations
  std::optional<std::pair<int, std::int64_t>> in_inbox_;  // stage and micro-batch
};

// Parameters, slabs and splits of one stage.
void place_stage(RankLayout::Stage& stage, Carver& arena, MemoryNeed& need, std::int64_t states) {
  const StageLayout& layout = stage.layout;
  const std::int64_t floats = layout.elements * float_bytes, state = layout.state_elements * float_bytes;
  const auto take = [&](std::int64_t bytes, std::int64_t& purpose) {
    purpose += aligned(bytes);
    return arena.take(bytes);
  };
  stage.masters = stage.weights = take(stage.has_masters() ? state : floats, need.weights);
  if (stage.has_masters()) stage.weights = take(layout.elements * 2, need.weights);
  stage.gradients = take(floats, need.gradients);
  for (std::int64_t i = 0; i < states; ++i) stage.states.push_back(take(state, need.optimizer_state));
  stage.first_slab = take(layout.slab_bytes * stage.slabs, need.activations);
  stage.first_split = take(layout.split_bytes * stage.splits, need.activations);
  stage.first_cache = take(layout.cache_bytes * stage.caches, need.activations);
}

// What the stages of a rank share.
void place_workspace(RankLayout& rank, Carver& arena) {
  std::int64_t boundary = 0, gradients = 0, recomputed = 0, scratch = 0, rope = 0;
  std::int64_t tensors = 0;
  bool sends = false;
  for (RankLayout::Stage& stage : rank.stages) {
    stage.first_tensor = tensors;
    tensors += static_cast<std::int64_t>(stage.layout.entries.size());
    const Transformer& t = stage.spec.transformer;
    boundary = std::max(boundary, stage.layout.boundary);
    gradients = std::max(gradients, stage.layout.gradient_bytes);
    recomputed = std::max(recomputed, stage.layout.recomputed_bytes);
    scratch = std::max(scratch, stage.layout.scratch_bytes);
    if (t.position == PositionKind::rotary) rope = stage.spec.shape.whole_sequence() * t.head_size * float_bytes;
    sends = sends || stage.number > 0;
  }
  const auto take = [&](std::int64_t bytes, std::int64_t& purpose) {
    purpose += aligned(bytes);
    return arena.take(bytes);
  };
  rank.outbox = take(sends ? outboxes * boundary : 0, rank.need.messages);
  rank.inbox = take(sends ? boundary : 0, rank.need.messages);
  std::int64_t& workspace = rank.need.workspace;
  rank.ping = take(boundary, workspace);
  rank.pong = take(boundary, workspace);
  rank.layer_gradients = take(gradients, workspace);
  rank.recomputed = take(recomputed, workspace);
  rank.scratch = take(scratch, workspace);
  rank.rope_table = take(rope, workspace);
  rank.step_state = take(sizeof(StepState), workspace);
  rank.gemm_workspace = take(gemm_workspace_bytes, workspace);
  rank.scalars = take(scalar_bytes, workspace);
  rank.tensors = take(tensors * tensor_record_bytes, workspace);
  rank.exchange_bytes = exchange_bytes;
  rank.exchange = take(exchange_bytes, workspace);
}

}  // namespace

RankLayout lay_out_rank(const Plan& plan, const LoweredSchedule& schedule, int rank, int shard, bool deterministic) {
  RankLayout result;
  Walk walk(plan, schedule, rank);
  result.places = walk.places();
  for (const Action& action : schedule.ranks[static_cast<std::size_t>(rank)]) {
    result.labels.push_back(to_string(action));
  }
  Carver arena;
  const auto states = static_cast<std::int64_t>(state_names(plan.optimizer).size());
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    if (!plan.stages[s].on(RankId{rank})) continue;
    RankLayout::Stage stage;
    stage.number = static_cast<int>(s);
    stage.counted = plan.stages[s].rank.value == rank;
    stage.spec = stage_spec(plan, s, shard);
    stage.spec.deterministic = deterministic;
    const bool shared_table = !result.stages.empty() && result.stages.front().number == 0;
    stage.layout = lay_out_stage(stage.spec, shared_table, state_shards(plan));
    stage.held = held_parameters(*plan.network.transformer, stage.spec.layers.first, stage.spec.layers.last,
                                 stage.spec.shard, stage.layout.entries.back().copy);
    stage.slabs = walk.slabs(stage.number), stage.splits = walk.splits(stage.number);
    stage.caches = walk.caches(stage.number);
    place_stage(stage, arena, result.need, states);
    result.stages.push_back(std::move(stage));
  }
  place_workspace(result, arena);
  result.arena_bytes = arena.size();
  assert(result.arena_bytes == result.need.total());
  return result;
}

}  // namespace stagecraft::cuda
