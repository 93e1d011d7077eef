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

// Which way each unit takes: units whose stages are on the same ranks share one.
std::vector<std::vector<int>> ways_of(const ComputeSchedule& schedule, const Placement& placement) {
  const auto rank = [&](int stage, int unit) { return placement.rank(StageId{stage}, MicrobatchId{unit}); };
  std::vector<std::vector<int>> ways;
  for (int unit = 0; unit < schedule.microbatches; ++unit) {
    const auto same = std::find_if(ways.begin(), ways.end(), [&](const std::vector<int>& way) {
      for (int s = 0; s < schedule.stages; ++s) {
        if (rank(s, way.front()) != rank(s, unit)) return false;
      }
      return true;
    });
    (same == ways.end() ? ways.emplace_back() : *same).push_back(unit);
  }
  return ways;
}

}  // namespace

int OrderProblem::most_units() const {
  std::size_t most = 0;
  for (const auto& way : ways) most = std::max(most, way.size());
  return static_cast<int>(most);
}

OrderProblem order_problem(const ScheduleShape& shape, const ComputeSchedule& placed) {
  const Placement placement(placed);
  OrderProblem problem;
  problem.ranks = shape.ranks;
  problem.stages = placed.stages;
  problem.slices = placed.slices;
  problem.ways = ways_of(placed, placement);
  for (const auto& way : problem.ways) {
    for (std::int32_t s = 0; s < placed.stages; ++s) {
      problem.rank_of_place.push_back(placement.rank(StageId{s}, MicrobatchId{way.front()}).value);
    }
  }
  problem.times = shape.times;
  if (problem.times.empty()) problem.times.assign(static_cast<std::size_t>(placed.stages), {});
  for (StageTimes& times : problem.times) {
    times = {times.forward / placed.slices, times.backward_input / placed.slices,
             times.backward_weight / placed.slices};
  }
  problem.message = shape.message;
  const double stages_per_rank = static_cast<double>(placed.stages) / shape.ranks;
  const double of_one_rank = stages_per_rank * placed.slices;
  const double limit = shape.memory_limit > 0 ? shape.memory_limit : std::numeric_limits<double>::infinity();
  const double all = static_cast<double>(placed.stages) * placed.microbatches;
  problem.activation_limit = static_cast<int>(std::min(all, std::floor(limit * of_one_rank)));
  return problem;
}

Orders orders_of(const OrderProblem& problem, const ComputeSchedule& schedule) {
  std::vector<int> way_of_unit(static_cast<std::size_t>(schedule.microbatches));
  for (std::size_t way = 0; way < problem.ways.size(); ++way) {
    for (const int unit : problem.ways[way]) way_of_unit[static_cast<std::size_t>(unit)] = static_cast<int>(way);
  }
  Orders orders(schedule.ranks.size());
  for (std::size_t rank = 0; rank < orders.size(); ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      const int way = way_of_unit[static_cast<std::size_t>(action.microbatch.value)];
      const int place = way * problem.stages + action.stage.value;
      const bool whole = action.kind == ActionKind::backward;
      orders[rank].push_back({place, whole ? ActionKind::backward_input : action.kind});
      if (whole) orders[rank].push_back({place, ActionKind::backward_weight});
    }
  }
  return orders;
}

ComputeSchedule schedule_of(const char* name, const OrderProblem& problem, const Orders& orders) {
  ComputeSchedule schedule{name, problem.stages, 0, {}};
  schedule.slices = problem.slices;
  for (const auto& way : problem.ways) schedule.microbatches += static_cast<int>(way.size());
  std::vector<std::array<int, 3>> next(problem.rank_of_place.size());
  for (const auto& word : orders) {
    auto& actions = schedule.ranks.emplace_back();
    actions.reserve(word.size());
    for (const Task& task : word) {
      int n = next[static_cast<std::size_t>(task.place)][letter(task.kind)]++;
      // Backwards take the slices of a micro-batch last to first.
      if (task.kind != ActionKind::forward) n = n - n % problem.slices + problem.slices - 1 - n % problem.slices;
      const int unit = problem.ways[static_cast<std::size_t>(task.place / problem.stages)][static_cast<std::size_t>(n)];
      actions.push_back({task.kind, StageId{problem.stage_of(task.place)}, MicrobatchId{unit}});
    }
  }
  return schedule;
}

bool is_legal_word(const OrderProblem& problem, const std::vector<Task>& word) {
  std::vector<std::array<int, 3>> count(problem.rank_of_place.size());
  int kept = 0;
  for (const Task& task : word) {
    auto& of_place = count[static_cast<std::size_t>(task.place)];
    const std::size_t kind = letter(task.kind);
    const int n = of_place[kind]++;
    if (kind == 0 && ++kept > problem.activation_limit) return false;
    if (kind == 1 && problem.forwards_before_input(n) > of_place[0]) return false;
    if (kind == 2 && n >= of_place[1]) return false;
    if (kind == 2) --kept;
  }
  return true;
}

OrderClock::OrderClock(const OrderProblem& problem)
    : problem_(problem),
      most_units_(static_cast<std::size_t>(problem.most_units())),
      forwards_(problem.rank_of_place.size() * most_units_),
      inputs_(forwards_.size()),
      next_(problem.rank_of_place.size()),
      at_start_(static_cast<std::size_t>(problem.ranks)),
      started_(at_start_.size()) {
  for (int place = 0; place < problem.places(); ++place) {
    const StageTimes& times = problem.times[static_cast<std::size_t>(problem.stage_of(place))];
    at_start_[static_cast<std::size_t>(problem.rank_of(place))].left +=
        problem.units(place) * (times.forward + times.backward_input + times.backward_weight);
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
  int& unit = next_[static_cast<std::size_t>(task.place)][letter(task.kind)];
  double start = state.clock;
  const bool forward = task.kind == ActionKind::forward;
  if (task.kind != ActionKind::backward_weight) {
    const int from = problem_.source(task.place, task.kind);
    if (from >= 0) {
      const Run& needed = (forward ? forwards_ : inputs_)[cell(from, unit)];
      if (!needed.done) return false;
      start = std::max(start, needed.end + problem_.message_between(from, task.place));
    }
  }
  const double time = problem_.time(task.place, task.kind);
  const double end = start + time;
  state.left -= time;
  started_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(state.position)] = {start, end, unit};
  if (task.kind != ActionKind::backward_weight) {
    (forward ? forwards_ : inputs_)[cell(task.place, unit)] = {end, state.position, true};
    const int to = problem_.target(task.place, task.kind);
    if (to >= 0 && problem_.rank_of(to) != rank) ready_.push_back(problem_.rank_of(to));
  }
  ++unit;
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
    const int from = problem_.source(task.place, task.kind);
    at = {problem_.rank_of(from), (forward ? forwards_ : inputs_)[cell(from, now.unit)].position};
  }
}

}  // namespace stagecraft
