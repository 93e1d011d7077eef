#include "models/schedule/zb_v.hpp"

#include <algorithm>
#include <cassert>

#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

// One rank's list in the making: knows the next micro-batch of every kind and chunk.
class RankOrder {
 public:
  RankOrder(StageId chunk0, StageId chunk1, int microbatches, std::vector<Action>& actions)
      : stages_{chunk0, chunk1}, microbatches_(microbatches), actions_(actions) {}

  void forward(int chunk) { add(ActionKind::forward, chunk, forwards_[chunk]++); }
  void input(int chunk) { add(ActionKind::backward_input, chunk, inputs_[chunk]++); }
  void weight(int chunk) { add(ActionKind::backward_weight, chunk, weights_[chunk]++); }
  void input_and_weight(int chunk) { input(chunk), weight(chunk); }
  void rest_of_weights(int chunk) {
    while (weights_[chunk] < inputs_[chunk]) weight(chunk);
  }
  int forwards(int chunk) const { return forwards_[chunk]; }

 private:
  void add(ActionKind kind, int chunk, int microbatch) {
    if (microbatch < microbatches_) actions_.push_back({kind, stages_[chunk], MicrobatchId{microbatch}});
  }

  StageId stages_[2];
  int microbatches_;
  std::vector<Action>& actions_;
  int forwards_[2] = {}, inputs_[2] = {}, weights_[2] = {};  // by chunk
};

}  // namespace

std::string refuse_zb_v(const ScheduleShape& shape) {
  return first_refusal({refuse_stages_per_rank(shape, 2), refuse_group(shape), refuse_slices(shape)});
}

ComputeSchedule generate_zb_v(const ScheduleShape& shape) {
  assert(refuse_zb_v(shape).empty());
  const int p = shape.ranks, m = shape.microbatches, full = std::max(m, 2 * p - 1);
  ComputeSchedule schedule{"zb-v", 2 * p, m, {}};
  schedule.ranks.resize(static_cast<std::size_t>(p));
  for (int rank = 0; rank < p; ++rank) {
    auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    actions.reserve(6 * static_cast<std::size_t>(m));
    RankOrder order(StageId{rank}, StageId{2 * p - 1 - rank}, m, actions);
    for (int i = 0; i < 2 * (p - rank) - 1; ++i) order.forward(0);
    for (int i = 0; i < rank; ++i) order.forward(1), order.forward(0);
    for (int i = 0; i < p - rank; ++i) order.forward(1), order.input_and_weight(1);
    while (order.forwards(1) < order.forwards(0) || order.forwards(0) < full) {
      if (order.forwards(0) < full) order.forward(0);
      order.input_and_weight(0);
      order.forward(1), order.input_and_weight(1);
    }
    for (int i = 0; i < rank; ++i) order.input(0), order.input(1);
    for (int i = 0; i < p - rank; ++i) order.input_and_weight(0);
    order.rest_of_weights(1);
    order.rest_of_weights(0);
  }
  return schedule;
}

}  // namespace stagecraft
