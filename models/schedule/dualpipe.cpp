#include "models/schedule/dualpipe.hpp"

#include <fmt/format.h>

#include <array>
#include <cassert>
#include <cstddef>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

// One of the two stages of a rank, and the micro-batch that each kind of work on it has come to.
struct StageLane {
  StageId stage;
  int next_forward;
  int next_backward;
};

// One rank's list. Lane 0 is the stage that the rank's first forwards run on, lane 1 the other.
class Rank {
 public:
  Rank(std::array<StageLane, 2> lanes, std::size_t actions) : lanes_(lanes) { actions_.reserve(actions); }

  void forward(std::size_t lane) { add(ActionKind::forward, lane, lanes_[lane].next_forward++); }
  void backward(std::size_t lane) { add(ActionKind::backward, lane, lanes_[lane].next_backward++); }
  void input(std::size_t lane) {
    add(ActionKind::backward_input, lane, lanes_[lane].next_backward++);
    pending_.push_back(actions_.back());
  }
  // The oldest weight gradient that is left.
  void weight() {
    Action action = pending_[oldest_pending_++];
    action.kind = ActionKind::backward_weight;
    actions_.push_back(action);
  }
  void forward_beside_backward(std::size_t forward_lane, std::size_t backward_lane) {
    forward(forward_lane);
    actions_.back().overlapped = true;
    backward(backward_lane);
  }
  std::vector<Action> take() { return std::move(actions_); }

 private:
  void add(ActionKind kind, std::size_t lane, int microbatch) {
    actions_.push_back({kind, lanes_[lane].stage, MicrobatchId{microbatch}});
  }

  std::array<StageLane, 2> lanes_;
  std::vector<Action> actions_, pending_;
  std::size_t oldest_pending_ = 0;
};

// The eight phases. `depth` is how far the rank is from where its lane 0 begins, `turn` how many ranks lane 0 has to
// pass before lane 1 begins, `microbatches` those of one lane.
std::vector<Action> run_phases(std::array<StageLane, 2> lanes, int depth, int turn, int microbatches) {
  Rank rank(lanes, 5 * static_cast<std::size_t>(microbatches));
  const int behind = turn - depth - 1;  // ranks between this one and the turn
  for (int i = 0; i < 2 * behind; ++i) rank.forward(0);
  for (int i = 0; i <= depth; ++i) {
    rank.forward(0);
    rank.forward(1);
  }
  for (int i = 0; i < behind; ++i) {
    rank.input(1);
    rank.weight();
    rank.forward(1);
  }
  for (int i = 0; i < microbatches - 2 * turn + depth + 1; ++i) {
    if (i == 0 && behind == 0) {
      // At the turn B waits for this very micro-batch's way through the rank, so that a block would only come later.
      rank.forward(0);
      rank.backward(1);
    } else {
      rank.forward_beside_backward(0, 1);
    }
    rank.forward_beside_backward(1, 0);
  }
  for (int i = 0; i < behind; ++i) {
    rank.backward(1);
    rank.forward_beside_backward(1, 0);
  }
  // From the middle of the drain on, weight gradients wait so that input gradients leave sooner.
  for (int i = 0; i < 2 * (depth + 1); ++i) {
    const auto lane = static_cast<std::size_t>(1 - i % 2);
    i <= depth ? rank.backward(lane) : rank.input(lane);
  }
  for (int i = 0; i < behind; ++i) {
    rank.weight();
    rank.input(0);
  }
  for (int i = 0; i <= depth; ++i) rank.weight();
  return rank.take();
}

}  // namespace

std::string refuse_dualpipe(const ScheduleShape& shape) {
  return first_refusal(
      {refuse_all_but(1, shape), refuse_odd_ranks(shape), refuse_odd_microbatches(shape, 2 * shape.ranks)});
}

ComputeSchedule generate_dualpipe(const ScheduleShape& shape) {
  assert(refuse_dualpipe(shape).empty());
  const int half = shape.microbatches / 2;
  ComputeSchedule schedule{"dualpipe", shape.ranks, shape.microbatches, {}};
  for (int r = 0; r < shape.ranks; ++r) {
    const int mirrored = shape.ranks - 1 - r;
    const StageLane down{StageId{r}, 0, 0}, up{StageId{mirrored}, half, half};
    const bool first_half = r < mirrored;
    schedule.ranks.push_back(run_phases(first_half ? std::array{down, up} : std::array{up, down},
                                        first_half ? r : mirrored, shape.ranks / 2, half));
  }
  return schedule;
}

std::string refuse_dualpipe_v(const ScheduleShape& shape) {
  std::string refusal = refuse_all_but(2, shape);
  if (!refusal.empty() || shape.microbatches >= 2 * shape.ranks) return refusal;
  return fmt::format("needs at least 2 P = {} micro-batches, got {}", 2 * shape.ranks, shape.microbatches);
}

ComputeSchedule generate_dualpipe_v(const ScheduleShape& shape) {
  assert(refuse_dualpipe_v(shape).empty());
  const int stages = 2 * shape.ranks;
  ComputeSchedule schedule{"dualpipe-v", stages, shape.microbatches, {}};
  for (int r = 0; r < shape.ranks; ++r) {
    const StageLane outward{StageId{r}, 0, 0}, back{StageId{stages - 1 - r}, 0, 0};
    schedule.ranks.push_back(run_phases({outward, back}, r, shape.ranks, shape.microbatches));
  }
  return schedule;
}

}  // namespace stagecraft
