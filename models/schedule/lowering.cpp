#include <cstddef>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

// Lowers one rank's list; knows the whole schedule only through the placement of the stages.
class RankLowering {
 public:
  RankLowering(const ComputeSchedule& schedule, const std::vector<RankId>& ranks, const LoweringOptions& options)
      : ranks_(ranks), options_(options), last_stage_(schedule.stages - 1), weight_gradients_left_(ranks.size()) {
    tied_ = options.tied_ends && ranks.front() != ranks.back();
  }

  std::vector<Action> lower(const std::vector<Action>& computes) {
    lowered_.clear();
    lowered_.reserve(3 * computes.size() + 8);
    for (const Action& action : computes) {
      if (makes_weight_gradient(action.kind)) ++weight_gradients_left_[index(action.stage)];
    }
    for (const Action& action : computes) {
      add_with_messages(action);
      if (makes_weight_gradient(action.kind) && --weight_gradients_left_[index(action.stage)] == 0) {
        // A tied stage's gradient is whole only after REDUCE_TIED, which must not hold up the rank's other work.
        if (options_.data_parallel && !is_tied(action.stage)) add(ActionKind::reduce_grad, action.stage);
      }
    }
    add_ending();
    return std::move(lowered_);
  }

  void set_rank(std::size_t rank) { rank_ = RankId{static_cast<std::int32_t>(rank)}; }

 private:
  static std::size_t index(StageId stage) { return static_cast<std::size_t>(stage.value); }
  static bool makes_weight_gradient(ActionKind kind) {
    return kind == ActionKind::backward || kind == ActionKind::backward_weight;
  }
  bool is_tied(StageId stage) const { return tied_ && (stage.value == 0 || stage.value == last_stage_); }
  // Whether the stage `offset` away exists and sits on another rank.
  bool crosses(StageId stage, int offset) const {
    const int neighbour = stage.value + offset;
    return neighbour >= 0 && neighbour <= last_stage_ && ranks_[static_cast<std::size_t>(neighbour)] != rank_;
  }
  void add(ActionKind kind, StageId stage, MicrobatchId microbatch = MicrobatchId{-1}) {
    lowered_.push_back({kind, stage, microbatch});
  }

  void add_with_messages(const Action& action) {
    const bool forward = action.kind == ActionKind::forward;
    const bool backward = action.kind == ActionKind::backward || action.kind == ActionKind::backward_input;
    const auto [stage, microbatch] = std::pair(action.stage, action.microbatch);
    if (forward && crosses(stage, -1)) add(ActionKind::recv_forward, stage, microbatch);
    if (backward && crosses(stage, +1)) add(ActionKind::recv_backward, stage, microbatch);
    lowered_.push_back(action);
    if (forward && crosses(stage, +1)) add(ActionKind::send_forward, stage, microbatch);
    if (backward && crosses(stage, -1)) add(ActionKind::send_backward, stage, microbatch);
  }

  void add_ending() {
    for (std::size_t s = 0; s < ranks_.size(); ++s) {
      const StageId stage{static_cast<std::int32_t>(s)};
      if (ranks_[s] != rank_ || !is_tied(stage)) continue;
      add(ActionKind::reduce_tied, stage);
      if (options_.data_parallel) add(ActionKind::reduce_grad, stage);
    }
    for (std::size_t s = 0; s < ranks_.size(); ++s) {
      if (ranks_[s] == rank_) add(ActionKind::optimizer_step, StageId{static_cast<std::int32_t>(s)});
    }
  }

  const std::vector<RankId>& ranks_;
  const LoweringOptions& options_;
  int last_stage_;
  bool tied_ = false;
  RankId rank_;
  std::vector<int> weight_gradients_left_;  // by stage
  std::vector<Action> lowered_;
};

}  // namespace

LoweredSchedule lower(const ComputeSchedule& schedule, const LoweringOptions& options) {
  const auto faults = check(schedule);
  if (!faults.empty()) throw bad_input("schedule '{}': {}", schedule.name, faults.front().message);
  const std::vector<RankId> ranks = placement(schedule);
  LoweredSchedule lowered{schedule.name, schedule.stages, schedule.microbatches, {}};
  RankLowering lowering(schedule, ranks, options);
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    lowering.set_rank(rank);
    lowered.ranks.push_back(lowering.lower(schedule.ranks[rank]));
  }
  return lowered;
}

}  // namespace stagecraft
