#include "models/schedule/hanayo.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t forward_time = 1, backward_time = 2;

// A stage works through the micro-batches in order, forwards and backwards alike.
struct Stage {
  int forwards = 0, backwards = 0;                      // begun
  std::vector<std::int64_t> forward_end, backward_end;  // by micro-batch, of those begun
};

// All ranks at once, in steps of the unit of time: whoever is free takes the best work that is ready.
class Simulation {
 public:
  Simulation(const ScheduleShape& shape, int window)
      : ranks_(shape.ranks),
        microbatches_(shape.microbatches),
        window_(window),
        stages_(static_cast<std::size_t>(shape.ranks) * static_cast<std::size_t>(shape.stages_per_rank)),
        free_at_(static_cast<std::size_t>(shape.ranks)),
        lists_(static_cast<std::size_t>(shape.ranks)) {
    for (Stage& stage : stages_) {
      stage.forward_end.reserve(static_cast<std::size_t>(microbatches_));
      stage.backward_end.reserve(static_cast<std::size_t>(microbatches_));
    }
    for (auto& list : lists_) {
      list.reserve(2 * static_cast<std::size_t>(shape.stages_per_rank) * static_cast<std::size_t>(microbatches_));
    }
  }

  std::vector<std::vector<Action>> run() {
    for (std::int64_t now = 0; stages_.front().backwards < microbatches_; ++now) {
      for (int rank = 0; rank < ranks_; ++rank) {
        if (free_at_[static_cast<std::size_t>(rank)] <= now) start_best(rank, now);
      }
    }
    return std::move(lists_);
  }

 private:
  // The stages of a rank: with each wave down the ranks and up again.
  int stage_of(int rank, int chunk) const { return chunk * ranks_ + (chunk % 2 == 0 ? rank : ranks_ - 1 - rank); }
  int chunks() const { return static_cast<int>(stages_.size()) / ranks_; }
  static bool ended(const std::vector<std::int64_t>& ends, int microbatch, std::int64_t now) {
    return static_cast<std::size_t>(microbatch) < ends.size() && ends[static_cast<std::size_t>(microbatch)] <= now;
  }

  bool forward_is_ready(int s, std::int64_t now) const {
    const Stage& stage = stages_[static_cast<std::size_t>(s)];
    if (stage.forwards == microbatches_) return false;
    if (s == 0) return stage.forwards - finished_ < window_;
    return ended(stages_[static_cast<std::size_t>(s) - 1].forward_end, stage.forwards, now);
  }
  bool backward_is_ready(int s, std::int64_t now) const {
    const Stage& stage = stages_[static_cast<std::size_t>(s)];
    const bool last = static_cast<std::size_t>(s) + 1 == stages_.size();
    const auto& needed = last ? stage.forward_end : stages_[static_cast<std::size_t>(s) + 1].backward_end;
    return stage.backwards < microbatches_ && ended(needed, stage.backwards, now);
  }

  // A backward before a forward, the oldest micro-batch first; of the forwards that of the deepest stage.
  void start_best(int rank, std::int64_t now) {
    std::optional<int> best;
    for (int chunk = 0; chunk < chunks(); ++chunk) {
      const int s = stage_of(rank, chunk);
      if (backward_is_ready(s, now) && (!best || backwards(s) < backwards(*best))) best = s;
    }
    if (best) return start(rank, *best, ActionKind::backward, now);
    for (int chunk = chunks() - 1; chunk >= 0; --chunk) {
      const int s = stage_of(rank, chunk);
      if (forward_is_ready(s, now)) return start(rank, s, ActionKind::forward, now);
    }
  }
  int backwards(int s) const { return stages_[static_cast<std::size_t>(s)].backwards; }

  void start(int rank, int s, ActionKind kind, std::int64_t now) {
    Stage& stage = stages_[static_cast<std::size_t>(s)];
    const bool forward = kind == ActionKind::forward;
    const std::int64_t end = now + (forward ? forward_time : backward_time);
    const int microbatch = forward ? stage.forwards++ : stage.backwards++;
    (forward ? stage.forward_end : stage.backward_end).push_back(end);
    if (!forward && s == 0) ++finished_;
    free_at_[static_cast<std::size_t>(rank)] = end;
    lists_[static_cast<std::size_t>(rank)].push_back({kind, StageId{s}, MicrobatchId{microbatch}});
  }

  int ranks_, microbatches_, window_;
  int finished_ = 0;  // micro-batches whose last backward has begun
  std::vector<Stage> stages_;
  std::vector<std::int64_t> free_at_;  // by rank
  std::vector<std::vector<Action>> lists_;
};

}  // namespace

std::string refuse_hanayo(const ScheduleShape& shape) {
  if (shape.stages_per_rank % 2 != 0) {
    return fmt::format("needs an even number of stages a rank, two for each wave, got {}; nearest: {}",
                       shape.stages_per_rank, nearest_multiples(shape.stages_per_rank, 2, 2));
  }
  return first_refusal({refuse_group(shape), refuse_slices(shape), refuse_memory_below(1, shape)});
}

ComputeSchedule generate_hanayo(const ScheduleShape& shape) {
  assert(refuse_hanayo(shape).empty());
  const double limit = shape.memory_limit > 0 ? shape.memory_limit : 2.0 * shape.ranks;
  const int window = static_cast<int>(std::min<double>(limit, shape.microbatches));
  ComputeSchedule schedule{"hanayo", shape.ranks * shape.stages_per_rank, shape.microbatches, {}};
  schedule.ranks = Simulation(shape, window).run();
  return schedule;
}

}  // namespace stagecraft
