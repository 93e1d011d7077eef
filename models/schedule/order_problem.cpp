#include "models/schedule/order_problem.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace stagecraft {
namespace {

// F, I, W as 0, 1, 2.
std::size_t letter(ActionKind kind) {
  return kind == ActionKind::forward ? 0 : kind == ActionKind::backward_input ? 1 : 2;
}

}  // namespace

OrderProblem order_problem(const ScheduleShape& shape, const ComputeSchedule& placed) {
  OrderProblem problem;
  problem.ranks = shape.ranks;
  problem.microbatches = shape.microbatches;
  for (const RankId rank : placement(placed)) problem.rank_of_stage.push_back(rank.value);
  problem.times = shape.times;
  if (problem.times.empty()) problem.times.assign(problem.rank_of_stage.size(), {});
  problem.message = shape.message;
  const double limit = shape.memory_limit > 0 ? shape.memory_limit : shape.ranks;
  const double all = static_cast<double>(shape.stages_per_rank) * shape.microbatches;
  problem.activation_limit = static_cast<int>(std::min(all, std::floor(limit * shape.stages_per_rank)));
  return problem;
}

Orders orders_of(const ComputeSchedule& schedule) {
  Orders orders(schedule.ranks.size());
  for (std::size_t rank = 0; rank < orders.size(); ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      const bool whole = action.kind == ActionKind::backward;
      orders[rank].push_back({action.stage.value, whole ? ActionKind::backward_input : action.kind});
      if (whole) orders[rank].push_back({action.stage.value, ActionKind::backward_weight});
    }
  }
  return orders;
}

ComputeSchedule schedule_of(const char* name, const OrderProblem& problem, const Orders& orders) {
  ComputeSchedule schedule{name, problem.stages(), problem.microbatches, {}};
  std::vector<std::array<int, 3>> next(problem.rank_of_stage.size());
  for (const auto& word : orders) {
    auto& actions = schedule.ranks.emplace_back();
    actions.reserve(word.size());
    for (const Task& task : word) {
      const int microbatch = next[static_cast<std::size_t>(task.stage)][letter(task.kind)]++;
      actions.push_back({task.kind, StageId{task.stage}, MicrobatchId{microbatch}});
    }
  }
  return schedule;
}

bool is_legal_word(const OrderProblem& problem, const std::vector<Task>& word) {
  std::vector<std::array<int, 3>> count(problem.rank_of_stage.size());
  int kept = 0;
  for (const Task& task : word) {
    auto& of_stage = count[static_cast<std::size_t>(task.stage)];
    const std::size_t kind = letter(task.kind);
    ++of_stage[kind];
    if (kind > 0 && of_stage[kind] > of_stage[kind - 1]) return false;
    if (kind == 0 && ++kept > problem.activation_limit) return false;
    if (kind == 2) --kept;
  }
  return true;
}

OrderClock::OrderClock(const OrderProblem& problem)
    : problem_(problem),
      forwards_(problem.rank_of_stage.size() * static_cast<std::size_t>(problem.microbatches)),
      inputs_(forwards_.size()),
      next_(problem.rank_of_stage.size()),
      at_start_(static_cast<std::size_t>(problem.ranks)),
      started_(at_start_.size()) {
  for (int s = 0; s < problem.stages(); ++s) {
    const StageTimes& times = problem.times[static_cast<std::size_t>(s)];
    at_start_[static_cast<std::size_t>(problem.rank_of_stage[static_cast<std::size_t>(s)])].left +=
        problem.microbatches * (times.forward + times.backward_input + times.backward_weight);
  }
}

double OrderClock::run(const Orders& orders, double cutoff) {
  assert(orders.size() == at_start_.size());
  std::fill(forwards_.begin(), forwards_.end(), Run{});
  std::fill(inputs_.begin(), inputs_.end(), Run{});
  std::fill(next_.begin(), next_.end(), std::array<int, 3>{});
  ranks_ = at_start_;
  ready_.clear();
  for (int rank = problem_.ranks - 1; rank >= 0; --rank) {
    started_[static_cast<std::size_t>(rank)].resize(orders[static_cast<std::size_t>(rank)].size());
    ready_.push_back(rank);
  }
  bool in_time = true;
  while (in_time && !ready_.empty()) {
    const int rank = ready_.back();
    ready_.pop_back();
    while (advance(rank, orders[static_cast<std::size_t>(rank)])) {
    }
    const RankState& state = ranks_[static_cast<std::size_t>(rank)];
    in_time = state.clock + state.left <= cutoff * (1 + 1e-9);  // `left` has rounding errors of its own
  }
  for (const RankState& rank : ranks_) tasks_timed_ += rank.position;
  return in_time ? makespan_of(orders) : std::numeric_limits<double>::infinity();
}

double OrderClock::makespan_of(const Orders& orders) const {
  double makespan = 0;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (static_cast<std::size_t>(ranks_[rank].position) < orders[rank].size()) {
      return std::numeric_limits<double>::infinity();
    }
    makespan = std::max(makespan, ranks_[rank].clock);
  }
  return makespan;
}

// Runs the rank's next task, and wakes the rank that may wait for it. False when it has to wait, or is through.
bool OrderClock::advance(int rank, const std::vector<Task>& word) {
  RankState& state = ranks_[static_cast<std::size_t>(rank)];
  if (static_cast<std::size_t>(state.position) == word.size()) return false;
  const Task task = word[static_cast<std::size_t>(state.position)];
  int& microbatch = next_[static_cast<std::size_t>(task.stage)][letter(task.kind)];
  double start = state.clock;
  const bool forward = task.kind == ActionKind::forward;
  if (task.kind != ActionKind::backward_weight) {
    const int from = task.stage + (forward ? -1 : 1);
    if (from >= 0 && from < problem_.stages()) {
      const Run& needed = (forward ? forwards_ : inputs_)[cell(from, microbatch)];
      if (!needed.done) return false;
      start = std::max(start, needed.end + problem_.message_between(from, task.stage));
    }
  }
  const double time = problem_.time(task.stage, task.kind);
  const double end = start + time;
  state.left -= time;
  started_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(state.position)] = {start, end, microbatch};
  if (task.kind != ActionKind::backward_weight) {
    (forward ? forwards_ : inputs_)[cell(task.stage, microbatch)] = {end, state.position, true};
    const int to = task.stage + (forward ? 1 : -1);
    if (to >= 0 && to < problem_.stages()) {
      const int other = problem_.rank_of_stage[static_cast<std::size_t>(to)];
      if (other != rank) ready_.push_back(other);
    }
  }
  ++microbatch;
  ++state.position;
  state.clock = end;
  return true;
}

void OrderClock::critical_path(const Orders& orders, std::vector<Place>& path) const {
  path.clear();
  Place at;
  for (int rank = 0; rank < problem_.ranks; ++rank) {
    if (ranks_[static_cast<std::size_t>(rank)].clock > ranks_[static_cast<std::size_t>(at.rank)].clock) at.rank = rank;
  }
  at.position = ranks_[static_cast<std::size_t>(at.rank)].position - 1;
  while (true) {
    path.push_back(at);
    const auto rank = static_cast<std::size_t>(at.rank);
    const Started& now = started_[rank][static_cast<std::size_t>(at.position)];
    const double rank_was_free = at.position == 0 ? 0 : started_[rank][static_cast<std::size_t>(at.position) - 1].end;
    if (at.position > 0 && now.start == rank_was_free) {
      --at.position;
      continue;
    }
    if (now.start == 0) return;
    const Task& task = orders[rank][static_cast<std::size_t>(at.position)];
    const bool forward = task.kind == ActionKind::forward;
    const int from = task.stage + (forward ? -1 : 1);
    at = {problem_.rank_of_stage[static_cast<std::size_t>(from)],
          (forward ? forwards_ : inputs_)[cell(from, now.microbatch)].position};
  }
}

}  // namespace stagecraft
