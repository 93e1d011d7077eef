#include "models/schedule/zero_bubble_v_auto.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <optional>

#include "models/schedule/controllable_memory.hpp"
#include "models/schedule/legal_values.hpp"
#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

// What a rank does with a micro-batch, in this order. Chunk 0 of rank r is stage r, chunk 1 stage 2P-1-r. Forwards go
// down the ranks on chunk 0 and up on chunk 1, input gradients down on chunk 1 and up on chunk 0.
enum Pass : std::uint8_t { forward_0, forward_1, input_1, input_0 };
constexpr std::size_t passes = 4;
bool goes_down(Pass pass) { return pass == forward_0 || pass == input_1; }
bool is_forward(Pass pass) { return pass <= forward_1; }
constexpr double not_yet = -1;

struct Choices {
  bool fill_before_forwards;   // a weight gradient may also go into a gap that is too short for it, before forwards
  bool fill_before_gradients;  // the same before the second input gradients of micro-batches
};

struct RankState {
  std::array<StageTimes, 2> times;  // by chunk
  std::array<int, passes> done{};
  std::array<std::vector<double>, passes> ends;  // by pass and micro-batch
  std::vector<Action> actions;
  std::vector<Action> pending;  // weight gradients, in the order of their input gradients
  std::size_t weights = 0;      // of them that ran
  double clock = 0;
  double bubble = 0;  // idle time since the first forward
  int kept = 0;       // chunks

  bool has_weight_gradient() const { return weights < pending.size(); }
  int forwards() const { return done[forward_0] + done[forward_1]; }
};

struct Attempt {
  std::vector<std::vector<Action>> ranks;
  std::vector<double> bubbles;  // by rank
  double largest_bubble = 0;
  double longest_span = 0;  // of a rank, first start to last end
};

class Greedy {
 public:
  // `approved` are the bubbles of an earlier attempt, by rank: each rank may have as much less than its worst as it had
  // there. Empty at first.
  Greedy(const ScheduleShape& shape, int chunk_limit, Choices choices, const std::vector<double>& approved)
      : microbatches_(shape.microbatches), message_(shape.message), chunk_limit_(chunk_limit), choices_(choices) {
    const auto p = static_cast<std::size_t>(shape.ranks);
    ranks_.resize(p);
    head_start_.resize(p, 0);
    for (std::size_t r = 0; r < p; ++r) {
      if (!shape.times.empty()) ranks_[r].times = {shape.times[r], shape.times[2 * p - 1 - r]};
      if (!approved.empty()) head_start_[r] = *std::max_element(approved.begin(), approved.end()) - approved[r];
      ranks_[r].actions.reserve(6 * static_cast<std::size_t>(microbatches_));
      ranks_[r].pending.reserve(2 * static_cast<std::size_t>(microbatches_));
      for (auto& ends : ranks_[r].ends) ends.assign(static_cast<std::size_t>(microbatches_), not_yet);
    }
  }

  // Empty when the greedy order cannot go on within the memory.
  std::optional<Attempt> run() {
    warm_up();
    for (int round = 0; round < 2 * microbatches_ && possible_; ++round) {
      place_gradients();
      place_forwards();
    }
    Attempt attempt;
    for (std::size_t r = 0; r < ranks_.size() && possible_; ++r) {
      while (ranks_[r].has_weight_gradient()) add_weight(r);
      if (ranks_[r].weights != 2 * static_cast<std::size_t>(microbatches_)) possible_ = false;
      attempt.bubbles.push_back(ranks_[r].bubble);
      const double first_start = ranks_[r].ends[forward_0].front() - ranks_[r].times[0].forward;
      attempt.longest_span = std::max(attempt.longest_span, ranks_[r].clock - first_start);
      attempt.ranks.push_back(std::move(ranks_[r].actions));
    }
    attempt.largest_bubble = largest_bubble_;
    return possible_ ? std::optional(std::move(attempt)) : std::nullopt;
  }

 private:
  // The first micro-batch down and up again, and before it comes back as many forwards as the memory lets through.
  void warm_up() {
    const std::size_t p = ranks_.size();
    for (std::size_t r = 0; r < p; ++r) add(r, forward_0);
    add(p - 1, forward_1);
    for (std::size_t r = p - 1; r-- > 0;) {
      const double arrived = ranks_[r + 1].ends[forward_1][0] + message_;
      // Every rank above will want two more chunks for each of its ranks' first micro-batches.
      while (ranks_[r].kept + 2 + 2 * static_cast<int>(r) <= chunk_limit_ &&
             ranks_[r].done[forward_0] < microbatches_ && ranks_[r].clock + ranks_[r].times[0].forward <= arrived) {
        for (std::size_t above = 0; above <= r; ++above) add(above, forward_0);
      }
      add(r, forward_1);
    }
    // Then forwards of either chunk in turn on all ranks below, until each has run as many as the one above it.
    Pass next = forward_0;
    for (std::size_t r = 1; r < p && possible_; ++r) {
      const RankState& rank = ranks_[r];
      const RankState& above = ranks_[r - 1];
      while (possible_ && (rank.forwards() < above.forwards() ||
                           (rank.done[forward_1] <= above.done[forward_1] && above.done[forward_1] < microbatches_))) {
        for (std::size_t below = p; below-- > r;) {
          if (ranks_[below].done[next] < microbatches_) add(below, next);
        }
        next = next == forward_0 ? forward_1 : forward_0;
      }
    }
  }

  // One input gradient on each rank.
  void place_gradients() {
    std::vector<std::size_t> first, second;  // ranks whose turn it is with chunk 1, with chunk 0
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const RankState& rank = ranks_[r];
      const bool second_is_ready = rank.done[input_0] < rank.done[input_1] &&
                                   (r + 1 == ranks_.size() || arrival(r, input_0, rank.done[input_0]) >= 0 ||
                                    rank.done[input_1] == microbatches_);
      (second_is_ready ? second : first).push_back(r);
    }
    for (std::size_t i = second.size(); i-- > 0;) place(second[i], input_0, true);
    for (const std::size_t r : first) place(r, input_1, choices_.fill_before_gradients);
  }

  // A forward on each rank that has one ready.
  void place_forwards() {
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const RankState& rank = ranks_[r];
      if (rank.done[forward_1] == microbatches_) continue;
      if (rank.done[forward_1] < rank.done[forward_0] &&
          (r + 1 == ranks_.size() || arrival(r, forward_1, rank.done[forward_1]) >= 0)) {
        place(r, forward_1, choices_.fill_before_forwards);
      } else if (rank.done[forward_0] < microbatches_ && (r == 0 || arrival(r, forward_0, rank.done[forward_0]) >= 0)) {
        place(r, forward_0, choices_.fill_before_forwards);
      }
    }
  }

  // When the neighbour's result is there; not_yet where there is no neighbour or it has not run.
  double arrival(std::size_t r, Pass pass, int microbatch) const {
    if (goes_down(pass) ? r == 0 : r + 1 == ranks_.size()) return not_yet;
    const double end = ranks_[goes_down(pass) ? r - 1 : r + 1].ends[pass][static_cast<std::size_t>(microbatch)];
    return end == not_yet ? not_yet : end + message_;
  }

  // Weight gradients for the memory and for the gap before the pass, then the pass.
  void place(std::size_t r, Pass pass, bool may_fill_short_gap) {
    RankState& rank = ranks_[r];
    if (rank.done[pass] == microbatches_) return fail();
    while (is_forward(pass) && rank.kept + 1 > chunk_limit_ && rank.has_weight_gradient()) add_weight(r);
    const double arrived = arrival(r, pass, rank.done[pass]);
    while (rank.has_weight_gradient() && rank.clock + next_weight_time(rank) <= arrived) add_weight(r);
    const double largest = std::max(largest_bubble_, head_start_[r]);
    if (may_fill_short_gap && rank.has_weight_gradient() && arrived - rank.clock > largest - rank.bubble) add_weight(r);
    add(r, pass);
  }

  static double next_weight_time(const RankState& rank) {
    const Action& action = rank.pending[rank.weights];
    const bool chunk_0 = action.stage == rank.actions.front().stage;  // every list begins with chunk 0
    return rank.times[chunk_0 ? 0 : 1].backward_weight;
  }

  void add(std::size_t r, Pass pass) {
    RankState& rank = ranks_[r];
    const int m = rank.done[pass];
    const bool at_end = goes_down(pass) ? r == 0 : r + 1 == ranks_.size();
    const double arrived = arrival(r, pass, m);
    const bool own_input_ran = pass == forward_0 || rank.done[pass - 1] > m;
    if ((!at_end && arrived == not_yet) || !own_input_ran || (is_forward(pass) && rank.kept == chunk_limit_))
      return fail();
    const std::size_t chunk = pass == forward_0 || pass == input_0 ? 0 : 1;
    const auto stage = static_cast<std::int32_t>(chunk == 0 ? r : 2 * ranks_.size() - 1 - r);
    const StageTimes& times = rank.times[chunk];
    const double start = std::max(rank.clock, arrived);
    if (!rank.actions.empty()) rank.bubble += start - rank.clock;
    largest_bubble_ = std::max(largest_bubble_, rank.bubble);
    rank.clock = start + (is_forward(pass) ? times.forward : times.backward_input);
    rank.ends[pass][static_cast<std::size_t>(m)] = rank.clock;
    ++rank.done[pass];
    if (is_forward(pass)) {
      ++rank.kept;
      rank.actions.push_back({ActionKind::forward, StageId{stage}, MicrobatchId{m}});
    } else {
      rank.actions.push_back({ActionKind::backward_input, StageId{stage}, MicrobatchId{m}});
      rank.pending.push_back({ActionKind::backward_weight, StageId{stage}, MicrobatchId{m}});
    }
  }

  void add_weight(std::size_t r) {
    RankState& rank = ranks_[r];
    rank.clock += next_weight_time(rank);
    rank.actions.push_back(rank.pending[rank.weights++]);
    --rank.kept;
  }

  void fail() { possible_ = false; }

  int microbatches_;
  double message_;
  int chunk_limit_;
  Choices choices_;
  std::vector<RankState> ranks_;
  std::vector<double> head_start_;  // by rank: bubble that it had less than the worst in the earlier attempt
  double largest_bubble_ = 0;
  bool possible_ = true;
};

// Attempts, each with what the one before learned about bubbles, as long as they get better.
std::optional<Attempt> improve(const ScheduleShape& shape, int chunk_limit, Choices choices) {
  std::optional<Attempt> best = Greedy(shape, chunk_limit, choices, {}).run();
  while (best) {
    std::optional<Attempt> next = Greedy(shape, chunk_limit, choices, best->bubbles).run();
    if (!next || next->largest_bubble >= best->largest_bubble) break;
    best = std::move(next);
  }
  return best;
}

}  // namespace

std::string refuse_zb_v_auto(const ScheduleShape& shape) {
  return first_refusal({refuse_all_but(2, shape), refuse_memory_below((shape.ranks + 4) / 3, shape)});
}

ComputeSchedule generate_zb_v_auto(const ScheduleShape& shape) {
  assert(refuse_zb_v_auto(shape).empty());
  const double limit = shape.memory_limit > 0 ? shape.memory_limit : shape.ranks;
  const int chunk_limit = static_cast<int>(std::min(2 * limit, 2.0 * shape.ranks * shape.microbatches));
  std::optional<Attempt> best;
  for (const bool gradients : {true, false}) {
    for (const bool forwards : {true, false}) {
      if (best && best->largest_bubble == 0) break;
      std::optional<Attempt> attempt = improve(shape, chunk_limit, {forwards, gradients});
      if (attempt && (!best || attempt->longest_span < best->longest_span)) best = std::move(attempt);
    }
  }
  ComputeSchedule schedule{"zb-v-auto", 2 * shape.ranks, shape.microbatches, {}};
  if (best) {
    schedule.ranks = std::move(best->ranks);
  } else {
    // The greedy order runs into the limit: those made for little memory do not.
    const int v_half_keeps = (shape.ranks + 2) / 2;
    schedule.ranks = (limit >= v_half_keeps ? generate_v_half(shape) : generate_v_min(shape)).ranks;
  }
  return schedule;
}

}  // namespace stagecraft
