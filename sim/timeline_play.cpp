// Timeline::play: the graph of a schedule whose ranks share GPUs, played event by event.
#include <cstdint>
#include <functional>
#include <queue>
#include <set>
#include <utility>
#include <vector>

#include "sim/timeline.hpp"
#include "sim/timeline_weights.hpp"

namespace stagecraft {

class SharedPlay {
 public:
  SharedPlay(Timeline& timeline, const StepCosts& costs)
      : timeline_(timeline),
        graph_(timeline.dependents_),
        works_(timeline.weights_.size()),
        waits_for_(timeline.nodes_.size(), 2),
        progress_(costs.neighbours),
        computing_(costs.neighbours.size(), 0) {
    timeline.starts_.assign(timeline.nodes_.size(), 0);
    for (std::size_t i = 0; i < works_.size(); ++i) works_[i].points = {timeline.weights_[i]};
    for (std::size_t s = 0; s < costs.stages.size(); ++s) {
      if (costs.stages[s].beside.empty()) continue;
      const auto set = [&](Block block, ActionKind kind) {
        works_[weight_index(block, static_cast<std::uint32_t>(timeline.stages_), static_cast<int>(s))] =
            shared_work(costs.stages[s], kind);
      };
      set(Block::forward, ActionKind::forward);
      set(Block::backward, ActionKind::backward);
      set(Block::backward_input, ActionKind::backward_input);
      set(Block::backward_weight, ActionKind::backward_weight);
      set(Block::step, ActionKind::optimizer_step);
    }
  }

  void run() {
    timeline_.ends_[0] = 0;
    release(0);
    for (;;) {
      const auto end = progress_.next();
      if (end && (ready_.empty() || end->time <= ready_.top().first)) {
        const std::uint32_t node = computing_[static_cast<std::size_t>(end->worker)];
        timeline_.ends_[node] = end->time;
        progress_.finish(end->worker, end->time);
        release(node);
      } else if (!ready_.empty()) {
        const auto [time, node] = ready_.top();
        ready_.pop();
        begin(node, time);
      } else {
        return;
      }
    }
  }

 private:
  // Its end is known, be it in the future.
  void release(std::uint32_t node) {
    for (std::uint32_t i = graph_.first[node]; i < graph_.first[node + 1]; ++i) {
      const std::uint32_t next = graph_.nodes[i];
      if (--waits_for_[next] == 0) ready_.emplace(timeline_.earliest_start(timeline_.nodes_[next]), next);
    }
  }

  // Optimizer steps begin together: gradients are clipped to the length of all of them, which the last rank completes.
  // Where ranks share nothing that seldom matters; here they then disturb each other.
  void begin(std::uint32_t node, double now) {
    if (timeline_.synchronous_ && timeline_.is_step(timeline_.nodes_[node]) && !stepping_) {
      held_.push_back(node);
      if (static_cast<int>(held_.size()) < graph_.stepping_ranks) return;
      stepping_ = true;
      for (const std::uint32_t step : held_) begin(step, now);
      return;
    }
    timeline_.starts_[node] = now;
    const std::int32_t rank = graph_.ranks[node];
    const std::uint32_t duration = timeline_.nodes_[node].duration;
    if (rank < 0) {
      timeline_.ends_[node] = now + timeline_.weights_[duration];
      release(node);
      return;
    }
    computing_[static_cast<std::size_t>(rank)] = node;
    progress_.start(rank, now, works_[duration]);
  }

  using Ready = std::pair<double, std::uint32_t>;  // time, node
  Timeline& timeline_;
  const Timeline::Dependents& graph_;
  std::vector<SharedWork> works_;        // by weight
  std::vector<std::uint8_t> waits_for_;  // by node: predecessors whose end is not known
  std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready_;
  SharedProgress progress_;
  std::vector<std::uint32_t> computing_;  // by rank
  std::vector<std::uint32_t> held_;       // optimizer steps that wait for those of other ranks
  bool stepping_ = false;
};

bool Timeline::is_step(const Node& node) const {
  return node.duration >= weight_index(Block::step, static_cast<std::uint32_t>(stages_), 0);
}

void Timeline::find_dependents() {
  dependents_.first.assign(nodes_.size() + 1, 0);
  for (std::size_t i = 1; i < nodes_.size(); ++i) {
    ++dependents_.first[nodes_[i].after + 1];
    ++dependents_.first[nodes_[i].message_from + 1];
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) dependents_.first[i + 1] += dependents_.first[i];
  dependents_.nodes.resize(dependents_.first.back());
  std::vector<std::uint32_t> next(dependents_.first.begin(), dependents_.first.end() - 1);
  for (std::uint32_t i = 1; i < nodes_.size(); ++i) {
    dependents_.nodes[next[nodes_[i].after]++] = i;
    dependents_.nodes[next[nodes_[i].message_from]++] = i;
  }
  dependents_.ranks.assign(nodes_.size(), -1);
  std::set<std::int32_t> stepping;
  std::size_t at = 0;
  for (std::size_t rank = 0; rank < rank_ends_.size(); ++rank) {
    for (; at < rank_ends_[rank]; ++at) {
      if (actions_[at].role != Role::occupy) continue;
      const std::uint32_t node = actions_[at].node;
      dependents_.ranks[node] = static_cast<std::int32_t>(rank);
      if (is_step(nodes_[node])) stepping.insert(static_cast<std::int32_t>(rank));
    }
  }
  dependents_.stepping_ranks = static_cast<int>(stepping.size());
}

void Timeline::play(const StepCosts& costs) {
  if (dependents_.first.empty()) find_dependents();
  SharedPlay(*this, costs).run();
}

}  // namespace stagecraft
