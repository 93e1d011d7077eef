#include "models/schedule/two_way_waves.hpp"

#include <algorithm>
#include <cassert>
#include <cstddef>

namespace stagecraft {
namespace {

// The rank of a stage when stages go down the ranks and up again.
int zigzag_rank(int stage, int ranks) {
  const int place = stage % ranks;
  return stage / ranks % 2 == 0 ? place : ranks - 1 - place;
}

// Each rank's slots in time; an action with micro-batch -1 is an empty slot.
class SlotTable {
 public:
  SlotTable(int ranks, std::size_t slots) : slots_(static_cast<std::size_t>(ranks), std::vector<Action>(slots)) {}

  void put(int rank, std::size_t slot, const Action& action) {
    Action& place = slots_[static_cast<std::size_t>(rank)][slot];
    assert(place.microbatch.value < 0);
    place = action;
  }

  std::vector<std::vector<Action>> take_without_empty_slots() {
    for (auto& actions : slots_) std::erase_if(actions, [](const Action& a) { return a.microbatch.value < 0; });
    return std::move(slots_);
  }

 private:
  std::vector<std::vector<Action>> slots_;
};

}  // namespace

ComputeSchedule two_way_waves(std::string_view name, const ScheduleShape& shape) {
  assert(shape.ranks % 2 == 0 && shape.microbatches % 2 == 0);
  const int stages = shape.ranks * shape.stages_per_rank;
  const int half = shape.microbatches / 2;
  const int half_unit = shape.ranks / 2;
  const auto first_slot = [&](int m) {
    return 2 * (static_cast<std::size_t>(m / half_unit) * static_cast<std::size_t>(stages) +
                static_cast<std::size_t>(m % half_unit));
  };
  SlotTable table(shape.ranks, first_slot(half - 1) + 2 * static_cast<std::size_t>(stages));
  for (int m = 0; m < half; ++m) {
    for (int s = 0; s < stages; ++s) {
      const int rank = zigzag_rank(s, shape.ranks);
      const std::size_t forward = first_slot(m) + static_cast<std::size_t>(s);
      const std::size_t backward = first_slot(m) + static_cast<std::size_t>(2 * stages - 1 - s);
      const MicrobatchId down{m}, up{half + m};
      table.put(rank, forward, {ActionKind::forward, StageId{s}, down});
      table.put(rank, backward, {ActionKind::backward, StageId{s}, down});
      table.put(shape.ranks - 1 - rank, forward, {ActionKind::forward, StageId{s}, up});
      table.put(shape.ranks - 1 - rank, backward, {ActionKind::backward, StageId{s}, up});
    }
  }
  return {std::string(name), stages, shape.microbatches, table.take_without_empty_slots()};
}

}  // namespace stagecraft
