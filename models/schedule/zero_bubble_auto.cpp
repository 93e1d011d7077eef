#include "models/schedule/zero_bubble_auto.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

// What a micro-batch keeps is counted in parts. Bytes a token and hidden unit of a transformer layer: 34 + 5as/h from
// the forward on, of which the weight gradient needs 32 (the paper's table 1); 5as/h is 40 for its models (s = 1024,
// h/a = 128).
constexpr int parts_a_forward = 37, parts_a_weight = 16, parts_an_input = parts_a_forward - parts_a_weight;

struct Choices {
  bool delay_first_gradient;  // warm-up forwards may run beyond the moment at which the first gradient could start
  bool prefer_gradient;       // a rank well ahead of the next one may skip a forward
  bool fill_short_gaps;       // a weight gradient also goes into a gap that is too short for it
};

// One rank: what it ran so far and when.
struct RankState {
  StageTimes times;
  int forwards = 0, inputs = 0, weights = 0;
  double clock = 0;   // end of its last action
  double bubble = 0;  // idle time since its first forward
  std::vector<double> forward_end, input_end;
  std::vector<Action> actions;

  std::int64_t kept() const {  // parts
    return std::int64_t{parts_a_forward} * forwards - std::int64_t{parts_an_input} * inputs -
           std::int64_t{parts_a_weight} * weights;
  }
  bool has_weight_gradient() const { return weights < inputs; }
};

class Greedy {
 public:
  Greedy(const ScheduleShape& shape, double memory_limit, Choices choices)
      : microbatches_(shape.microbatches),
        message_(shape.message),
        memory_limit_(parts_a_forward * memory_limit),
        choices_(choices) {
    ranks_.resize(static_cast<std::size_t>(shape.ranks));
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (!shape.times.empty()) ranks_[r].times = shape.times[r];
      ranks_[r].actions.reserve(3 * static_cast<std::size_t>(microbatches_));
      ranks_[r].forward_end.reserve(static_cast<std::size_t>(microbatches_));
      ranks_[r].input_end.reserve(static_cast<std::size_t>(microbatches_));
    }
  }

  // Returns the longest span of a rank.
  double run() {
    warm_up();
    for (int m = 1; m < microbatches_; ++m) {
      const std::vector<bool> chosen = choose_forwards();
      for (std::size_t r = 0; r < ranks_.size(); ++r) {
        if (chosen[r]) place_forward(r);
      }
      for (std::size_t r = ranks_.size(); r-- > 0;) place_input(r);
    }
    double longest = 0;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      while (ranks_[r].has_weight_gradient()) add_weight(r);
      longest = std::max(longest, ranks_[r].clock - (ranks_[r].forward_end.front() - ranks_[r].times.forward));
    }
    return longest;
  }

  std::vector<std::vector<Action>> take_actions() {
    std::vector<std::vector<Action>> actions;
    for (RankState& rank : ranks_) actions.push_back(std::move(rank.actions));
    return actions;
  }

 private:
  // The first micro-batch everywhere, with as many further forwards as fit before its gradient comes back.
  void warm_up() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) add_forward(r);
    const std::vector<int> more = warm_up_forwards();
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      for (int i = 0; i < more[r]; ++i) add_forward(r);
    }
    for (std::size_t r = ranks_.size(); r-- > 0;) add_input(r);
  }

  std::vector<int> warm_up_forwards() const {
    std::vector<int> more(ranks_.size());
    double arrival = 0;  // of the first gradient
    for (std::size_t r = ranks_.size(); r-- > 0;) {
      const RankState& rank = ranks_[r];
      double clock = rank.clock;
      if (r + 1 < ranks_.size()) {
        arrival += message_;
        for (int kept = 1; kept < microbatches_ && parts_a_forward * (kept + 1.0) <= memory_limit_; ++kept) {
          if (choices_.delay_first_gradient ? clock >= arrival : clock + rank.times.forward > arrival) break;
          clock += rank.times.forward;
          ++more[r];
        }
      }
      arrival = std::max(arrival, clock) + rank.times.backward_input;
    }
    for (std::size_t r = 1; r < more.size(); ++r) {
      const bool previous_runs_all = more[r - 1] == microbatches_ - 1;
      more[r] = std::min(more[r], previous_runs_all ? more[r - 1] : std::max(0, more[r - 1] - 1));
    }
    return more;
  }

  // Which ranks run a forward in this round. A rank that skips makes those before it skip, too.
  std::vector<bool> choose_forwards() const {
    std::vector<bool> chosen(ranks_.size());
    for (std::size_t r = ranks_.size(); r-- > 0;) {
      chosen[r] = ranks_[r].forwards < microbatches_ && (r + 1 == ranks_.size() || chosen[r + 1]) && !may_skip(r);
    }
    return chosen;
  }

  // Whether the gradient that rank r waits for comes so soon that a forward, with the weight gradients that it needs
  // for its memory, would delay it, and waiting for it would not make the bubble of r the largest.
  bool may_skip(std::size_t r) const {
    if (!choices_.prefer_gradient || r + 1 == ranks_.size()) return false;
    const RankState& rank = ranks_[r];
    const RankState& next = ranks_[r + 1];
    if (rank.forwards < next.forwards + 2) return false;
    const double arrival = next.clock + next.times.forward + next.times.backward_input + message_;
    if (rank.clock >= arrival) return true;
    const double excess = std::max(0.0, static_cast<double>(rank.kept() + parts_a_forward) - memory_limit_);
    const double weights = std::min<double>(rank.inputs - rank.weights, std::ceil(excess / parts_a_weight));
    if (rank.clock + rank.times.forward + weights * rank.times.backward_weight <= arrival) return false;
    return arrival - rank.clock <= largest_bubble_ - rank.bubble;
  }

  void place_forward(std::size_t r) {
    RankState& rank = ranks_[r];
    while (static_cast<double>(rank.kept() + parts_a_forward) > memory_limit_) add_weight(r);
    if (r > 0) fill_gap(r, ranks_[r - 1].forward_end[static_cast<std::size_t>(rank.forwards)] + message_);
    add_forward(r);
  }

  void place_input(std::size_t r) {
    RankState& rank = ranks_[r];
    if (r + 1 < ranks_.size()) fill_gap(r, ranks_[r + 1].input_end[static_cast<std::size_t>(rank.inputs)] + message_);
    // The first rank's gradients go nowhere: nothing waits for them, the weight gradients may as well go first.
    while (r == 0 && rank.forwards == microbatches_ && rank.has_weight_gradient()) add_weight(r);
    add_input(r);
  }

  // Weight gradients between now and the arrival of what the rank needs next.
  void fill_gap(std::size_t r, double arrival) {
    RankState& rank = ranks_[r];
    while (rank.has_weight_gradient() && rank.clock + rank.times.backward_weight <= arrival) add_weight(r);
    if (!rank.has_weight_gradient() || rank.clock >= arrival) return;
    const bool bubble_is_harmless = arrival - rank.clock <= largest_bubble_ - rank.bubble;
    if (choices_.fill_short_gaps || !bubble_is_harmless) add_weight(r);
  }

  void add_forward(std::size_t r) {
    RankState& rank = ranks_[r];
    const auto m = static_cast<std::size_t>(rank.forwards);
    const double arrival = r > 0 ? ranks_[r - 1].forward_end[m] + message_ : 0;
    rank.forward_end.push_back(add(r, ActionKind::forward, rank.forwards++, arrival, rank.times.forward));
  }
  void add_input(std::size_t r) {
    RankState& rank = ranks_[r];
    const auto m = static_cast<std::size_t>(rank.inputs);
    const double arrival = r + 1 < ranks_.size() ? ranks_[r + 1].input_end[m] + message_ : 0;
    rank.input_end.push_back(add(r, ActionKind::backward_input, rank.inputs++, arrival, rank.times.backward_input));
  }
  void add_weight(std::size_t r) {
    RankState& rank = ranks_[r];
    add(r, ActionKind::backward_weight, rank.weights++, 0, rank.times.backward_weight);
  }
  // Returns the end.
  double add(std::size_t r, ActionKind kind, int microbatch, double arrival, double duration) {
    RankState& rank = ranks_[r];
    const double start = std::max(rank.clock, arrival);
    if (!rank.actions.empty()) rank.bubble += start - rank.clock;
    largest_bubble_ = std::max(largest_bubble_, rank.bubble);
    rank.clock = start + duration;
    rank.actions.push_back({kind, StageId{static_cast<std::int32_t>(r)}, MicrobatchId{microbatch}});
    return rank.clock;
  }

  int microbatches_;
  double message_;
  double memory_limit_;  // parts
  Choices choices_;
  std::vector<RankState> ranks_;
  double largest_bubble_ = 0;
};

ComputeSchedule best_of_all_choices(const char* name, const ScheduleShape& shape, double default_limit) {
  assert(refuse_zero_bubble_auto(shape).empty());
  const double limit = shape.memory_limit > 0 ? shape.memory_limit : default_limit;
  ComputeSchedule best{name, shape.ranks, shape.microbatches, {}};
  double shortest = std::numeric_limits<double>::infinity();
  for (const bool delay : {true, false}) {
    for (const bool prefer : {true, false}) {
      for (const bool fill : {true, false}) {
        Greedy greedy(shape, limit, {delay, prefer, fill});
        const double span = greedy.run();
        if (span >= shortest) continue;
        shortest = span;
        best.ranks = greedy.take_actions();
      }
    }
  }
  return best;
}

}  // namespace

ComputeSchedule generate_zb_1p(const ScheduleShape& shape) { return best_of_all_choices("zb-1p", shape, shape.ranks); }
ComputeSchedule generate_zb_2p(const ScheduleShape& shape) {
  return best_of_all_choices("zb-2p", shape, 2 * shape.ranks);
}

std::string refuse_zero_bubble_auto(const ScheduleShape& shape) {
  return first_refusal({refuse_all_but(1, shape), refuse_memory_below(1, shape)});
}

}  // namespace stagecraft
