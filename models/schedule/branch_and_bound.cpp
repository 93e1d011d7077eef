#include "models/schedule/branch_and_bound.hpp"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "models/schedule/lower_bound.hpp"

namespace stagecraft {
namespace {

constexpr int max_ranks = 4, max_microbatches = 6;
constexpr std::array<ActionKind, 3> kinds{ActionKind::forward, ActionKind::backward_input, ActionKind::backward_weight};

// What a rank has done.
struct Progress {
  std::array<int, 3> done{};  // F, I, W
  double clock = 0;
  std::array<double, max_microbatches> forward_end{}, input_end{};
};
using State = std::array<Progress, max_ranks>;

class BranchAndBound {
 public:
  explicit BranchAndBound(const OrderProblem& problem)
      : problem_(problem), floor_(lower_bound(problem)), orders_(static_cast<std::size_t>(problem.ranks)) {
    best_.makespan = std::numeric_limits<double>::infinity();
  }

  ProvenOrder run() {
    branch(State{});
    return std::move(best_);
  }

 private:
  struct Candidate {
    int rank;
    std::size_t kind;
    double start, end;
  };

  const Progress& at(const State& state, int rank) const { return state[static_cast<std::size_t>(rank)]; }
  const StageTimes& times(int rank) const { return problem_.times[static_cast<std::size_t>(rank)]; }

  void branch(const State& state) {
    if (best_.makespan <= floor_ || bound(state) >= best_.makespan) return;
    const std::vector<Candidate> next = candidates(state);
    if (next.empty()) {
      double end = 0;
      for (const Progress& rank : state) end = std::max(end, rank.clock);
      best_ = {end, orders_};
      return;
    }
    if (is_dominated(state)) return;
    const Candidate& first =
        *std::min_element(next.begin(), next.end(), [](const auto& a, const auto& b) { return a.end < b.end; });
    for (const Candidate& candidate : next) {
      if (candidate.rank != first.rank || (candidate.start >= first.end && &candidate != &first)) continue;
      State after = state;
      apply(after, candidate);
      orders_[static_cast<std::size_t>(candidate.rank)].push_back({candidate.rank, kinds[candidate.kind]});
      branch(after);
      orders_[static_cast<std::size_t>(candidate.rank)].pop_back();
    }
  }

  // The next F, I and W of each rank whose inputs have been made and whose memory is there.
  std::vector<Candidate> candidates(const State& state) const {
    std::vector<Candidate> found;
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const Progress& now = at(state, rank);
      const auto [forwards, inputs, weights] = now.done;
      const auto add = [&](std::size_t kind, double arrival) {
        const double start = std::max(now.clock, arrival);
        found.push_back({rank, kind, start, start + problem_.time(rank, kinds[kind])});
      };
      if (inputs < forwards) {
        if (rank == problem_.ranks - 1) {
          add(1, 0);
        } else if (at(state, rank + 1).done[1] > inputs) {
          add(1, at(state, rank + 1).input_end[static_cast<std::size_t>(inputs)] + problem_.message);
        }
      }
      if (forwards < problem_.units(0) && forwards - weights < problem_.activation_limit) {
        if (rank == 0) {
          add(0, 0);
        } else if (at(state, rank - 1).done[0] > forwards) {
          add(0, at(state, rank - 1).forward_end[static_cast<std::size_t>(forwards)] + problem_.message);
        }
      }
      if (weights < inputs) add(2, 0);
    }
    return found;
  }

  static void apply(State& state, const Candidate& candidate) {
    Progress& rank = state[static_cast<std::size_t>(candidate.rank)];
    const auto microbatch = static_cast<std::size_t>(rank.done[candidate.kind]++);
    if (candidate.kind == 0) rank.forward_end[microbatch] = candidate.end;
    if (candidate.kind == 1) rank.input_end[microbatch] = candidate.end;
    rank.clock = candidate.end;
  }

  // No completion of the state ends before this.
  double bound(const State& state) const {
    const int m = problem_.units(0);
    double latest = 0;
    double way_out = 0;  // from an input gradient's end on this rank to the end of all
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const Progress& now = at(state, rank);
      const double weights = (m - now.done[2]) * times(rank).backward_weight;
      const double others = (m - now.done[0]) * times(rank).forward + (m - now.done[1]) * times(rank).backward_input;
      latest = std::max(latest, now.clock + others + weights);
      if (now.done[1] < m) {
        // Weight gradients behind the last input gradient: no more than the memory holds.
        const double behind = std::min(m - now.done[2], problem_.activation_limit) * times(rank).backward_weight;
        latest = std::max(latest, now.clock + others + weights - behind + std::max(behind, way_out));
      }
      if (rank == 0) way_out = times(0).backward_weight;
      way_out += problem_.message + times(rank).backward_input;
    }
    return std::max(latest, last_microbatch(state));
  }

  // The way of the last micro-batch from where it is.
  double last_microbatch(const State& state) const {
    const auto last = static_cast<std::size_t>(problem_.units(0) - 1);
    double arrival = 0;
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const Progress& now = at(state, rank);
      const int left = problem_.units(0) - now.done[0];
      arrival = left == 0 ? now.forward_end[last]
                          : std::max(now.clock + (left - 1) * times(rank).forward, arrival) + times(rank).forward;
      if (rank + 1 < problem_.ranks) arrival += problem_.message;
    }
    for (int rank = problem_.ranks - 1; rank >= 0; --rank) {
      const Progress& now = at(state, rank);
      const int left = problem_.units(0) - now.done[1];
      arrival = left == 0 ? now.input_end[last]
                          : std::max(now.clock + (left - 1) * times(rank).backward_input, arrival) +
                                times(rank).backward_input;
      if (rank > 0) arrival += problem_.message;
    }
    const bool weight_left = at(state, 0).done[2] < problem_.units(0);
    return arrival + (weight_left ? times(0).backward_weight : 0);
  }

  // Whether a state with the same tasks done came by that is no later anywhere; remembers this one if not.
  bool is_dominated(const State& state) {
    std::uint64_t key = 0;
    std::vector<double> moments;
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const Progress& now = at(state, rank);
      for (const int done : now.done) key = key * (max_microbatches + 1) + static_cast<std::uint64_t>(done);
      moments.push_back(now.clock);
      if (rank + 1 < problem_.ranks) {
        for (int m = at(state, rank + 1).done[0]; m < now.done[0]; ++m) {
          moments.push_back(now.forward_end[static_cast<std::size_t>(m)]);
        }
      }
      if (rank > 0) {
        for (int m = at(state, rank - 1).done[1]; m < now.done[1]; ++m) {
          moments.push_back(now.input_end[static_cast<std::size_t>(m)]);
        }
      }
    }
    auto& seen = seen_[key];
    const auto no_later = [](const std::vector<double>& a, const std::vector<double>& b) {
      return std::equal(a.begin(), a.end(), b.begin(), std::less_equal<>());
    };
    for (const auto& other : seen) {
      if (no_later(other, moments)) return true;
    }
    std::erase_if(seen, [&](const auto& other) { return no_later(moments, other); });
    seen.push_back(std::move(moments));
    return false;
  }

  const OrderProblem& problem_;
  double floor_;
  Orders orders_;  // of the branch being looked at
  ProvenOrder best_;
  std::unordered_map<std::uint64_t, std::vector<std::vector<double>>> seen_;
};

}  // namespace

ProvenOrder branch_and_bound(const OrderProblem& problem) {
  assert(problem.ranks <= max_ranks && problem.units(0) <= max_microbatches && problem.slices == 1);
  for (int place = 0; place < problem.places(); ++place) assert(problem.rank_of(place) == place);
  return BranchAndBound(problem).run();
}

}  // namespace stagecraft
