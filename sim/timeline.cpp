#include "sim/timeline.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

#include "sim/timeline_weights.hpp"

namespace stagecraft {
namespace {

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

}  // namespace

// Runs the schedule without a clock: a rank goes on until it needs something that is not there yet, and is woken when
// it is. Ranks take turns, a computation each, so that neighbours in the sweep seldom depend on each other.
class TimelineBuilder {
 public:
  TimelineBuilder(const LoweredSchedule& schedule, Timeline& timeline)
      : schedule_(schedule),
        timeline_(timeline),
        stages_(static_cast<std::uint32_t>(schedule.stages)),
        microbatches_(static_cast<std::uint32_t>(schedule.microbatches)),
        made_by_(2ULL * stages_ * microbatches_, none),
        waited_by_(made_by_.size(), none),
        ranks_(schedule.ranks.size()),
        ready_(schedule.ranks.size() + 1),
        reduced_(stages_, 0),
        sums_(stages_),
        sharers_(stages_, 0) {}

  void build() {
    std::size_t actions = 0, nodes = 1;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      ranks_[rank].first_action = actions;
      actions += schedule_.ranks[rank].size();
      for (const Action& action : schedule_.ranks[rank]) {
        nodes += is_node(action.kind) ? 1 : 0;
        if (action.kind == ActionKind::reduce_grad) ++sharers_[static_cast<std::size_t>(action.stage.value)];
      }
      push_ready(static_cast<std::uint32_t>(rank));
    }
    assert(actions < none && "the graph counts in 32 bits");
    timeline_.actions_.resize(actions);
    timeline_.nodes_.reserve(nodes);
    timeline_.nodes_.push_back({0, 0, no_weight, no_weight});
    while (ready_head_ != ready_tail_) take_turn(pop_ready());
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      assert(ranks_[rank].position == schedule_.ranks[rank].size() && "REQUIRES: a schedule from lower()");
      timeline_.last_nodes_.push_back(ranks_[rank].last);
      timeline_.rank_ends_.push_back(static_cast<std::uint32_t>(ranks_[rank].first_action + ranks_[rank].position));
    }
  }

 private:
  using Role = Timeline::Role;
  struct Rank {
    std::size_t first_action = 0;
    std::size_t position = 0;
    std::uint32_t last = 0;  // the node that occupied the rank last
  };
  // A reduction that two ranks come to: one node for both, made when the later one gets there.
  struct Meeting {
    std::uint32_t first = none;  // action of the rank that came first, and what it came after
    std::uint32_t after = 0;
    std::uint32_t waited_by = none;
    bool done = false;
  };

  static bool is_node(ActionKind kind) { return is_compute(kind) || kind >= ActionKind::reduce_tied; }
  std::uint32_t weight(Block block, StageId stage) const { return weight_index(block, stages_, stage.value); }
  // Between which stages a message goes, named by the earlier one.
  static StageId hop_of(const Action& action) {
    const bool to_next = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_backward;
    return {action.stage.value - (to_next ? 0 : 1)};
  }
  std::size_t message_of(const Action& action) const {
    const bool forward = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_forward;
    return (static_cast<std::size_t>(hop_of(action).value) * 2 + (forward ? 0 : 1)) * microbatches_ +
           static_cast<std::size_t>(action.microbatch.value);
  }

  void push_ready(std::uint32_t rank) {
    ready_[ready_tail_] = rank;
    ready_tail_ = ready_tail_ + 1 == ready_.size() ? 0 : ready_tail_ + 1;
  }
  std::uint32_t pop_ready() {
    const std::uint32_t rank = ready_[ready_head_];
    ready_head_ = ready_head_ + 1 == ready_.size() ? 0 : ready_head_ + 1;
    return rank;
  }
  std::uint32_t add_node(std::uint32_t after, std::uint32_t message_from, std::uint32_t message,
                         std::uint32_t duration) {
    timeline_.nodes_.push_back({after, message_from, message, duration});
    return static_cast<std::uint32_t>(timeline_.nodes_.size() - 1);
  }

  // A rank does everything up to its next computation, and that; or stops before what it has to wait for.
  void take_turn(std::uint32_t rank_index) {
    Rank& rank = ranks_[rank_index];
    const std::vector<Action>& actions = schedule_.ranks[rank_index];
    std::uint32_t arrived_from = 0, arrived = no_weight;
    for (; rank.position < actions.size(); ++rank.position) {
      const Action& action = actions[rank.position];
      const std::size_t at = rank.first_action + rank.position;
      if (is_compute(action.kind)) {
        rank.last = add_node(rank.last, arrived_from, arrived, weight(static_cast<Block>(action.kind), action.stage));
        timeline_.actions_[at] = {rank.last, no_weight, Role::occupy};
        if (++rank.position < actions.size()) push_ready(rank_index);
        return;
      }
      switch (action.kind) {
        case ActionKind::send_forward:
        case ActionKind::send_backward:
          send(message_of(action), rank.last);
          timeline_.actions_[at] = {rank.last, weight(Block::hop, hop_of(action)), Role::message};
          break;
        case ActionKind::recv_forward:
        case ActionKind::recv_backward:
          if (made_by_[message_of(action)] == none) {
            // Woken, the rank takes this turn again: an overlapped pair's first message is still there.
            waited_by_[message_of(action)] = rank_index;
            rank.position -= arrived_from == 0 ? 0 : 1;
            return;
          }
          // An overlapped pair waits for two messages: the first gets a node without duration.
          if (arrived_from != 0) rank.last = add_node(rank.last, arrived_from, arrived, no_weight);
          arrived_from = made_by_[message_of(action)];
          arrived = weight(Block::hop, hop_of(action));
          // lower() put the computation that needs it behind: the next node, but for a pair's first message.
          timeline_.actions_[at] = {static_cast<std::uint32_t>(timeline_.nodes_.size()), no_weight, Role::wait};
          break;
        case ActionKind::reduce_tied:
          if (meet(tied_, at, rank.last, 0, weight(Block::tied, StageId{0}))) {
            reduced_.front() = reduced_.back() = static_cast<std::uint32_t>(timeline_.nodes_.size() - 1);
          }
          break;
        case ActionKind::reduce_grad:
          if (!reduce_grad(action, at, rank, rank_index)) return;
          break;
        case ActionKind::optimizer_step:
          if (!optimizer_step(action, at, rank, rank_index)) return;
          break;
        default:  // UNSHARD, RESHARD: take no time
          timeline_.actions_[at] = {rank.last, no_weight, Role::message};
      }
    }
  }

  void send(std::size_t message, std::uint32_t maker) {
    made_by_[message] = maker;
    if (waited_by_[message] != none) push_ready(waited_by_[message]);
  }

  // True when the other rank had come already, so that the node is made.
  bool meet(Meeting& meeting, std::size_t at, std::uint32_t after, std::uint32_t reduced, std::uint32_t duration) {
    if (meeting.first == none) {
      meeting.first = static_cast<std::uint32_t>(at);
      meeting.after = after;
      return false;
    }
    if (reduced != 0) after = add_node(after, reduced, no_weight, no_weight);
    const std::uint32_t node = add_node(after, meeting.after, no_weight, duration);
    timeline_.actions_[meeting.first] = timeline_.actions_[at] = {node, no_weight, Role::reduce};
    meeting.done = true;
    if (meeting.waited_by != none) push_ready(meeting.waited_by);
    return true;
  }

  // Whether the rank has to wait for the other end of a tied table of this stage.
  bool waits_for_tied(StageId stage, std::uint32_t rank_index) {
    const bool is_end = stage.value == 0 || stage.value + 1 == schedule_.stages;
    if (!is_end || tied_.first == none || tied_.done) return false;
    tied_.waited_by = rank_index;
    return true;
  }

  bool reduce_grad(const Action& action, std::size_t at, Rank& rank, std::uint32_t rank_index) {
    if (waits_for_tied(action.stage, rank_index)) return false;
    const auto stage = static_cast<std::size_t>(action.stage.value);
    const std::uint32_t duration = weight(Block::grad, action.stage);
    if (sharers_[stage] > 1) {
      if (meet(sums_[stage], at, rank.last, reduced_[stage], duration)) {
        reduced_[stage] = static_cast<std::uint32_t>(timeline_.nodes_.size() - 1);
      }
      return true;
    }
    reduced_[stage] = add_node(rank.last, reduced_[stage], no_weight, duration);
    timeline_.actions_[at] = {reduced_[stage], no_weight, Role::reduce};
    return true;
  }

  // After the reductions of the stage; false while another rank is late for one.
  bool optimizer_step(const Action& action, std::size_t at, Rank& rank, std::uint32_t rank_index) {
    if (action.microbatch.value >= 0) timeline_.synchronous_ = false;
    if (waits_for_tied(action.stage, rank_index)) return false;
    const auto stage = static_cast<std::size_t>(action.stage.value);
    if (sums_[stage].first != none && !sums_[stage].done) {
      sums_[stage].waited_by = rank_index;
      return false;
    }
    rank.last = add_node(rank.last, reduced_[stage], no_weight, weight(Block::step, action.stage));
    timeline_.actions_[at] = {rank.last, no_weight, Role::occupy};
    return true;
  }

  const LoweredSchedule& schedule_;
  Timeline& timeline_;
  std::uint32_t stages_, microbatches_;
  std::vector<std::uint32_t> made_by_;    // node that made a message, by message_of()
  std::vector<std::uint32_t> waited_by_;  // rank that waits for it
  std::vector<Rank> ranks_;
  std::vector<std::uint32_t> ready_;  // ring buffer of the ranks that can go on, each at most once
  std::size_t ready_head_ = 0, ready_tail_ = 0;
  std::vector<std::uint32_t> reduced_;  // the last reduction of a stage, or the start
  Meeting tied_;
  std::vector<Meeting> sums_;  // by stage: REDUCE_GRAD of those on two ranks
  std::vector<int> sharers_;   // by stage: ranks with a REDUCE_GRAD
};

Timeline::Timeline(const LoweredSchedule& schedule) : stages_(schedule.stages) {
  TimelineBuilder(schedule, *this).build();
  weights_.resize(1 + static_cast<std::size_t>(Block::count) * static_cast<std::size_t>(stages_));
  ends_.resize(nodes_.size());
}

void Timeline::set_weights(const StepCosts& costs) {
  assert(costs.stages.size() == static_cast<std::size_t>(stages_) && costs.reduce_grad.size() == costs.stages.size());
  assert(costs.hops.size() + 1 == costs.stages.size());
  for (int s = 0; s < stages_; ++s) {
    const auto at = static_cast<std::size_t>(s);
    const StageCost& cost = costs.stages[at];
    const auto set = [&](Block block, Seconds time) {
      weights_[weight_index(block, static_cast<std::uint32_t>(stages_), s)] = time.value();
    };
    set(Block::forward, cost.forward);
    set(Block::backward, cost.backward());
    set(Block::backward_input, cost.backward_input);
    set(Block::backward_weight, cost.backward_weight);
    set(Block::hop, at < costs.hops.size() ? costs.hops[at].transfer_time(cost.boundary) : Seconds(0));
    set(Block::tied, costs.reduce_tied);
    set(Block::grad, costs.reduce_grad[at]);
    set(Block::step, cost.optimizer);
  }
}

void Timeline::sweep() {
  const double* weights = weights_.data();
  double* ends = ends_.data();
  const std::size_t count = nodes_.size();
  for (std::size_t i = 1; i < count; ++i) {
    const Node& node = nodes_[i];
    const double start = std::max(ends[node.after], ends[node.message_from] + weights[node.message]);
    ends[i] = start + weights[node.duration];
  }
}

Seconds Timeline::makespan(const StepCosts& costs) {
  set_weights(costs);
  played_ = !costs.neighbours.empty();
  if (played_) {
    play(costs);
  } else {
    sweep();
  }
  double last = 0;
  for (const std::uint32_t node : last_nodes_) last = std::max(last, ends_[node]);
  return Seconds(last);
}

std::vector<Seconds> Timeline::busy() const {
  std::vector<Seconds> busy;
  std::size_t at = 0;
  for (const std::uint32_t end : rank_ends_) {
    Seconds& sum = busy.emplace_back();
    for (; at < end; ++at) {
      if (actions_[at].role == Role::occupy) sum += Seconds(ends_[actions_[at].node] - start_of(actions_[at].node));
    }
  }
  return busy;
}

Seconds Timeline::evaluate(const StepCosts& costs, std::vector<Span>& spans) {
  const Seconds last = makespan(costs);
  node_spans_.resize(nodes_.size());
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    node_spans_[i] = {Seconds(start_of(i)), Seconds(ends_[i])};
  }
  spans.resize(actions_.size());
  std::size_t at = 0;
  for (const std::uint32_t end : rank_ends_) {
    Seconds free_from;  // when the rank's last node ended
    for (; at < end; ++at) {
      const ActionNode& action = actions_[at];
      const Span& node = node_spans_[action.node];
      switch (action.role) {
        case Role::occupy:
          free_from = node.end;
          [[fallthrough]];
        case Role::reduce:
          spans[at] = node;
          break;
        case Role::message:
          spans[at] = {free_from, free_from + Seconds(weights_[action.message])};
          break;
        case Role::wait:
          spans[at] = {free_from, node.start};
          free_from = node.start;  // an overlapped pair's second wait begins where the first ends
          break;
      }
    }
  }
  return last;
}

}  // namespace stagecraft
