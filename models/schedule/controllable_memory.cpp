#include "models/schedule/controllable_memory.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>

#include "models/schedule/legal_values.hpp"

namespace stagecraft {
namespace {

// The work of a micro-batch on one rank, in its order. Chunk 0 is stage r of rank r, chunk 1 stage 2P-1-r.
enum Pass : std::int8_t { forward_0, forward_1, input_1, input_0, weight, idle = -1 };
constexpr int passes = 4;        // without weight gradients
constexpr int block_length = 6;  // slots of a micro-batch on a rank: two chunks, three passes each

// What a rank does in one slot. Weight gradients are numbered in the order of their input gradients.
struct Cell {
  Pass pass = idle;
  int index = 0;  // micro-batch, or number of the weight gradient
};

// One rank's slots in time, and where each pass of each micro-batch is in them.
class Lane {
 public:
  Lane(const std::array<int, passes>& block, int microbatches) {
    for (auto& slots : slots_) slots.resize(static_cast<std::size_t>(microbatches));
    cells_.resize(static_cast<std::size_t>(block.back()) + 1 +
                  static_cast<std::size_t>(block_length) * static_cast<std::size_t>(microbatches - 1));
    for (int pass = 0; pass < passes; ++pass) {
      for (int m = 0; m < microbatches; ++m) put({static_cast<Pass>(pass), m}, block[pass] + block_length * m);
    }
  }

  int length() const { return static_cast<int>(cells_.size()); }
  Cell cell(int slot) const { return slot < length() ? cells_[static_cast<std::size_t>(slot)] : Cell{}; }
  int slot(Pass pass, int index) const { return slots_[pass][static_cast<std::size_t>(index)]; }

  void put(Cell cell, int slot) {
    if (slot >= length()) cells_.resize(static_cast<std::size_t>(slot) + 1);
    assert(cells_[static_cast<std::size_t>(slot)].pass == idle);
    cells_[static_cast<std::size_t>(slot)] = cell;
    slots_[cell.pass][static_cast<std::size_t>(cell.index)] = slot;
  }
  void move(int from, int to) {
    const Cell moved = cell(from);
    cells_[static_cast<std::size_t>(from)] = {};
    put(moved, to);
  }

  // A weight gradient in each idle slot that comes after an input gradient without one, the rest at the end.
  void add_weights() {
    slots_[weight].resize(2 * slots_[forward_0].size());
    int ready = 0, done = 0;
    for (int slot = 0; done < static_cast<int>(slots_[weight].size()); ++slot) {
      const Pass pass = cell(slot).pass;
      if (pass == input_0 || pass == input_1) ++ready;
      if (pass == idle && done < ready) put({weight, done++}, slot);
    }
  }
  void remove_weights() {
    for (Cell& cell : cells_) {
      if (cell.pass == weight) cell = {};
    }
    while (cells_.back().pass == idle) cells_.pop_back();
  }
  void clear_cells() { cells_.clear(); }

 private:
  std::vector<Cell> cells_;                         // by slot
  std::array<std::vector<int>, passes + 1> slots_;  // [pass][index]
};

// Activations that a lane keeps, slot by slot. Where the lane has no weight gradients, each idle slot counts as one if
// there is something to do for it.
class Memory {
 public:
  Memory(const Lane& lane, bool has_weights) : lane_(lane), has_weights_(has_weights) { update_from(0); }

  int peak() const {
    int highest = 0;
    for (const State& state : states_) highest = std::max(highest, state.kept);
    return highest;
  }
  int kept_after(int slot) const { return states_[static_cast<std::size_t>(slot)].kept; }

  // After a change of the lane at `slot` and behind.
  void update_from(int slot) {
    states_.resize(static_cast<std::size_t>(lane_.length()));
    State state = before(slot);
    for (int at = slot; at < lane_.length(); ++at) {
      step(state, lane_.cell(at).pass);
      states_[static_cast<std::size_t>(at)] = state;
    }
  }

  // Whether no more than `limit` would be kept if what is at `from` moved to the idle slot `to` before it.
  bool fits_with_move(int from, int to, int limit) const {
    State state = before(to);
    for (int at = to; at < lane_.length(); ++at) {
      step(state, at == to ? lane_.cell(from).pass : at == from ? idle : lane_.cell(at).pass);
      if (state.kept > limit) return false;
      if (at >= from && state == states_[static_cast<std::size_t>(at)]) return true;
    }
    return true;
  }

 private:
  struct State {
    int kept = 0;
    int ready = 0;  // input gradients whose weight gradient has not run; without weight gradients in the lane only
    bool operator==(const State&) const = default;
  };

  State before(int slot) const { return slot == 0 ? State{} : states_[static_cast<std::size_t>(slot) - 1]; }
  void step(State& state, Pass pass) const {
    if (pass == forward_0 || pass == forward_1) ++state.kept;
    if (pass == weight) --state.kept;
    if (has_weights_) return;
    if (pass == input_0 || pass == input_1) ++state.ready;
    if (pass == idle && state.ready > 0) {
      --state.ready;
      --state.kept;
    }
  }

  const Lane& lane_;
  bool has_weights_;
  std::vector<State> states_;
};

class Squeezer {
 public:
  Squeezer(const std::vector<std::array<int, passes>>& block, int microbatches) : microbatches_(microbatches) {
    for (const auto& offsets : block) lanes_.emplace_back(offsets, microbatches);
  }

  // Repeats the block, squeezes it with its weight gradients, then squeezes the drain again with room where they were.
  std::vector<Lane> run() {
    for (Lane& lane : lanes_) lane.add_weights();
    squeeze(true);
    run_early();
    for (Lane& lane : lanes_) lane.remove_weights();
    squeeze(false);
    for (Lane& lane : lanes_) lane.add_weights();
    run_early();
    for (Lane& lane : lanes_) lane.remove_weights();
    return std::move(lanes_);
  }

 private:
  int ranks() const { return static_cast<int>(lanes_.size()); }
  Lane& lane(int rank) { return lanes_[static_cast<std::size_t>(rank)]; }
  int last_slot() const {
    int last = 0;
    for (const Lane& lane : lanes_) last = std::max(last, lane.length());
    return last;
  }

  // The slot behind everything that a cell waits for, its weight gradient's input gradient apart.
  int earliest(int rank, Cell cell) {
    int slot = 0;
    const auto after = [&](int other, Pass pass, int index) {
      if (other >= 0 && other < ranks()) slot = std::max(slot, lane(other).slot(pass, index) + 1);
    };
    if (cell.pass == forward_0 || cell.pass == input_1) after(rank - 1, cell.pass, cell.index);
    if (cell.pass == forward_1 || cell.pass == input_0) after(rank + 1, cell.pass, cell.index);
    if (cell.pass != weight && cell.pass != forward_0) after(rank, static_cast<Pass>(cell.pass - 1), cell.index);
    if (cell.index > 0) after(rank, cell.pass, cell.index - 1);
    return slot;
  }

  // Moves what comes before the steady state (with weight gradients in place only) and behind it to earlier idle slots,
  // as long as no lane keeps more than the fullest does now. The steady state lasts from the first input gradient that
  // leaves the pipeline to the last forward that enters it.
  void squeeze(bool has_weights) {
    std::vector<Memory> memory;
    for (const Lane& lane : lanes_) memory.emplace_back(lane, has_weights);
    int limit = 0;
    for (const Memory& lane : memory) limit = std::max(limit, lane.peak());
    std::vector<std::vector<int>> inputs(lanes_.size());  // slots of the input gradients so far, by rank, in order
    enum { fill, steady, drain } phase = fill;
    const int end = last_slot();
    for (int slot = 0; slot < end; ++slot) {
      for (int rank = 0; rank < ranks(); ++rank) {
        const Cell cell = lane(rank).cell(slot);
        if (cell.pass == idle) continue;
        if (phase == fill && cell.pass == input_0 && rank == 0) phase = steady;
        int to = slot;
        if (phase == drain || (phase == fill && has_weights)) {
          int from = earliest(rank, cell);
          if (cell.pass == weight)
            from = std::max(from, inputs[static_cast<std::size_t>(rank)][static_cast<std::size_t>(cell.index)] + 1);
          to = place(rank, memory[static_cast<std::size_t>(rank)], from, slot, limit);
        }
        if (phase == steady && cell.pass == forward_0 && cell.index == microbatches_ - 1) phase = drain;
        if (cell.pass == input_0 || cell.pass == input_1) {
          auto& sorted = inputs[static_cast<std::size_t>(rank)];
          sorted.insert(std::upper_bound(sorted.begin(), sorted.end(), to), to);
        }
      }
    }
  }

  // Moves the cell at `slot` to the first idle slot from `from` on that the memory allows. Returns where it is then.
  int place(int rank, Memory& memory, int from, int slot, int limit) {
    for (int to = from; to < slot; ++to) {
      if (lane(rank).cell(to).pass != idle || !memory.fits_with_move(slot, to, limit)) continue;
      lane(rank).move(slot, to);
      memory.update_from(to);
      return to;
    }
    return slot;
  }

  // Every rank as early as it can in its order, all passes one slot long.
  void run_early() {
    std::vector<Lane> before = lanes_;
    for (Lane& lane : lanes_) lane.clear_cells();
    const int end = [&] {
      int last = 0;
      for (const Lane& lane : before) last = std::max(last, lane.length());
      return last;
    }();
    for (int slot = 0; slot < end; ++slot) {
      for (int rank = 0; rank < ranks(); ++rank) {
        const Cell cell = before[static_cast<std::size_t>(rank)].cell(slot);
        if (cell.pass != idle) lane(rank).put(cell, std::max(earliest(rank, cell), lane(rank).length()));
      }
    }
  }

  int microbatches_;
  std::vector<Lane> lanes_;
};

// The squeezed slots as actions, with the weight gradients of chunk 1 before those of chunk 0.
std::vector<Action> actions_of(const Lane& lane, StageId chunk_0, StageId chunk_1, int microbatches) {
  std::vector<Action> actions;
  actions.reserve(static_cast<std::size_t>(block_length) * static_cast<std::size_t>(microbatches));
  int inputs_0 = 0, inputs_1 = 0, weights_0 = 0, weights_1 = 0;
  for (int slot = 0; weights_0 < microbatches || weights_1 < microbatches; ++slot) {
    const Cell cell = lane.cell(slot);
    switch (cell.pass) {
      case forward_0:
        actions.push_back({ActionKind::forward, chunk_0, MicrobatchId{cell.index}});
        break;
      case forward_1:
        actions.push_back({ActionKind::forward, chunk_1, MicrobatchId{cell.index}});
        break;
      case input_1:
        actions.push_back({ActionKind::backward_input, chunk_1, MicrobatchId{inputs_1++}});
        break;
      case input_0:
        actions.push_back({ActionKind::backward_input, chunk_0, MicrobatchId{inputs_0++}});
        break;
      default:
        if (weights_1 < inputs_1) {
          actions.push_back({ActionKind::backward_weight, chunk_1, MicrobatchId{weights_1++}});
        } else if (weights_0 < inputs_0) {
          actions.push_back({ActionKind::backward_weight, chunk_0, MicrobatchId{weights_0++}});
        }
    }
  }
  return actions;
}

ComputeSchedule from_block(const char* name, const ScheduleShape& shape,
                           const std::vector<std::array<int, passes>>& block) {
  assert(refuse_controllable_memory(shape).empty());
  const int stages = 2 * shape.ranks;
  ComputeSchedule schedule{name, stages, shape.microbatches, {}};
  const std::vector<Lane> lanes = Squeezer(block, shape.microbatches).run();
  for (int r = 0; r < shape.ranks; ++r) {
    schedule.ranks.push_back(
        actions_of(lanes[static_cast<std::size_t>(r)], StageId{r}, StageId{stages - 1 - r}, shape.microbatches));
  }
  return schedule;
}

}  // namespace

ComputeSchedule generate_v_half(const ScheduleShape& shape) {
  const int p = shape.ranks;
  const int shift = p % 2 == 0 ? 3 : 0;  // keeps the slots of a rank apart modulo the block's length
  std::vector<std::array<int, passes>> block;
  block.reserve(static_cast<std::size_t>(p));
  for (int r = 0; r < p; ++r) {
    block.push_back({2 * r, 3 * p - r - 2, 3 * p + shift + 2 * r - 1, 6 * p + shift - r - 2});
  }
  return from_block("v-half", shape, block);
}

ComputeSchedule generate_v_min(const ScheduleShape& shape) {
  const int p = shape.ranks;
  const int shift = p % 3 == 0 ? 2 : 0;
  std::vector<std::array<int, passes>> block;
  block.reserve(static_cast<std::size_t>(p));
  for (int r = 0; r < p; ++r) block.push_back({r, 2 * p - r - 1, 2 * p + shift + r, 4 * p + shift - r - 1});
  return from_block("v-min", shape, block);
}

std::string refuse_controllable_memory(const ScheduleShape& shape) { return refuse_all_but(2, shape); }

}  // namespace stagecraft
