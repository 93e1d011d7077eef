#include "runtime/cuda/short_network.hpp"

#include <algorithm>
#include <barrier>
#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "models/network/layer_graph.hpp"
#include "runtime/make_executor.hpp"

namespace stagecraft::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int whole_backwards = 3;  // micro-batches; the first is counted apart
constexpr int split_backwards = 3;
constexpr int microbatches = whole_backwards + split_backwards;
// The first step loads kernels, the second captures graphs.
constexpr int warm_up_steps = 2;
constexpr int least_steps = 5;
constexpr int most_steps = 200;
// A GPU at its power limit lowers its clock too far at first.
constexpr double settling = 0.2;  // of the time that a condition is measured for
constexpr int updates = 12;       // measured at each level
// Of a step's time, after each: what bubbles leave. After longer ones clocks are lower than in pipelines that load a
// GPU as much without ever resting as a whole.
constexpr double rests[] = {0.2, 0.4};
constexpr int updates_between_waits = 4;  // so that neighbours seldom rest

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// `ahead`: forwards between a micro-batch's forward and its backward.
ComputeSchedule one_rank(int ahead) {
  ComputeSchedule schedule{"custom", short_stages, microbatches, {{}}};
  auto& actions = schedule.ranks[0];
  const auto forward = [&](int m) {
    for (int s = 0; s < short_stages; ++s) actions.push_back({ActionKind::forward, StageId{s}, MicrobatchId{m}});
  };
  for (int m = 0; m < ahead; ++m) forward(m);
  for (int m = 0; m < microbatches; ++m) {
    if (m + ahead < microbatches) forward(m + ahead);
    for (int s = short_stages - 1; s >= 0; --s) {
      if (m < whole_backwards) {
        actions.push_back({ActionKind::backward, StageId{s}, MicrobatchId{m}});
        continue;
      }
      actions.push_back({ActionKind::backward_input, StageId{s}, MicrobatchId{m}});
      actions.push_back({ActionKind::backward_weight, StageId{s}, MicrobatchId{m}});
    }
  }
  return schedule;
}

// A device's copy of the network.
class Runner {
 public:
  Runner(const Plan& plan, double share_of_ends, const TrainingOptions& options, Transport& transport)
      : plan_(plan),
        share_of_ends_(share_of_ends),
        schedule_(plan.lowered()),
        placement_(plan.schedule),
        executor_(make_executor({plan_,
                                 schedule_,
                                 placement_,
                                 options,
                                 transport,
                                 [this](auto, auto, auto tokens, auto targets) { fill(tokens), fill(targets); },
                                 {0, 0, 0}})) {
    const int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / transport.workers());
    std::vector<float> values;
    for (std::size_t i = 0; i < executor_->parameters().size(); ++i) {
      const Parameter& parameter = executor_->parameters()[i].parameter;
      values.resize(static_cast<std::size_t>(parameter.count()));
      fill_initial(parameter, 1, values, threads);
      executor_->write(i, -1, 0, values);
    }
  }

  // One step; times go to `times` unless it is null.
  void step(ShortTimes* times) {
    const auto& actions = schedule_.ranks.front();
    const auto start = Clock::now();
    begin();
    bool first_update = true;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (is_compute(actions[i].kind) && takes_part(actions[i])) executor_->compute(i);
      if (actions[i].kind != ActionKind::optimizer_step) continue;
      if (std::exchange(first_update, false)) executor_->squared_gradient_norm();  // as clipping does
      executor_->optimizer_step(i, 1e-4, 1);
    }
    executor_->end_step();
    if (times != nullptr) take(*times, Clock::now() - start);
  }

  // What a neighbour in a pipeline does most of the time. REQUIRES: two steps before.
  void compute() {
    const auto& actions = schedule_.ranks.front();
    begin();
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (is_compute(actions[i].kind) && takes_part(actions[i])) executor_->compute(i);
    }
    executor_->end_step();
  }

  // Forwards alone, which all ranks of a pipeline do at the same time under GPipe. REQUIRES: two steps before.
  void forwards() {
    const auto& actions = schedule_.ranks.front();
    begin();
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (actions[i].kind == ActionKind::forward && takes_part(actions[i])) executor_->compute(i);
    }
    executor_->end_step();
  }

  // Optimizer steps alone, which all ranks of a pipeline do at the same time.
  void update(ShortTimes* times) {
    const auto& actions = schedule_.ranks.front();
    executor_->begin_step(++step_, true);
    for (int repetition = 0; repetition < updates_between_waits; ++repetition) {
      for (std::size_t i = 0; i < actions.size(); ++i) {
        if (actions[i].kind == ActionKind::optimizer_step) executor_->optimizer_step(i, 1e-4, 1);
      }
    }
    executor_->end_step();
    if (times == nullptr) return;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const auto when = executor_->device_time(i);  // of the last repetition
      if (actions[i].kind != ActionKind::optimizer_step || !when) continue;
      times->stages[actions[i].stage.value].optimizer.push_back(seconds(when->end - when->start));
    }
  }

 private:
  void begin() {
    executor_->begin_step(++step_, true);
    ends_ = with_ends(step_ <= warm_up_steps ? 1 : share_of_ends_, step_, microbatches);
  }

  bool takes_part(const Action& action) const {
    const bool is_end = action.stage.value == embedding_stage || action.stage.value == head_stage;
    return !is_end || ends_[static_cast<std::size_t>(action.microbatch.value)];
  }

  void take(ShortTimes& times, Clock::duration whole) const {
    const auto& actions = schedule_.ranks.front();
    Clock::duration accounted{};
    std::optional<Clock::time_point> before;  // end of the last computation
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const Action& action = actions[i];
      const auto when = executor_->device_time(i);
      if (!when || (is_compute(action.kind) && !takes_part(action))) continue;
      ShortTimes::Stage& stage = times.stages[action.stage.value];
      if (!is_compute(action.kind)) {
        accounted += when->end - when->start;
        continue;
      }
      const Clock::duration took = when->end - before.value_or(when->start);
      accounted += took;
      before = when->end;
      const bool first = action.microbatch.value == 0;
      switch (action.kind) {
        case ActionKind::forward:
          if (!first) stage.forward.push_back(seconds(took));
          break;
        case ActionKind::backward:
          (first ? stage.first_backward : stage.backward).push_back(seconds(took));
          break;
        case ActionKind::backward_input:
          stage.backward_input.push_back(seconds(took));
          break;
        default:
          stage.backward_weight.push_back(seconds(took));
      }
    }
    times.around.push_back(seconds(whole - accounted));
    if (const auto clock = executor_->clock()) times.clock.push_back(*clock);
  }

  void fill(std::span<std::int32_t> tokens) {
    for (std::int32_t& token : tokens) {
      next_ = next_ * 1664525U + 1013904223U;  // Knuth's "quick and dirty" generator: any tokens do
      token = static_cast<std::int32_t>(
          (std::uint64_t{next_} * static_cast<std::uint64_t>(plan_.network.transformer->vocabulary)) >> 32U);
    }
  }

  const Plan& plan_;
  double share_of_ends_;
  std::vector<bool> ends_;  // which micro-batches go through embedding and head
  LoweredSchedule schedule_;
  Placement placement_;
  std::uint32_t next_ = 1;
  std::int64_t step_ = 0;
  std::unique_ptr<Executor> executor_;
};

// The threads of one measurement.
class Measurement {
 public:
  Measurement(const std::vector<Plan>& plans, double share_of_ends, int levels, const TrainingOptions& training,
              Seconds budget, const std::atomic<bool>* stop)
      : plans_(plans),
        share_of_ends_(share_of_ends),
        training_(training),
        budget_(budget.value() / ((levels + 1) / 2.0 + (levels > 1 ? 1 : 0) + static_cast<double>(std::size(rests)))),
        stop_(stop),
        network_(static_cast<int>(plans.size()), {}),
        gate_(static_cast<std::ptrdiff_t>(plans.size())),
        updates_of_(plans.size()),
        runs_{
            .levels = std::vector<ShortTimes>(static_cast<std::size_t>(levels)), .beside_forwards = {}, .rested = {}} {}

  ShortRuns run() {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < plans_.size(); ++i) threads.emplace_back([this, i] { work(static_cast<int>(i)); });
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(runs_);
  }

 private:
  void work(int device) {
    try {
      const auto transport = network_.endpoint(device);
      Runner runner(plans_[static_cast<std::size_t>(device)], share_of_ends_, training_, *transport);
      for (int step = 0; step < warm_up_steps; ++step) runner.step(nullptr);
      gate_.arrive_and_wait();
      device == 0 ? lead(runner) : follow(runner, device);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      done_ = true;
    }
    gate_.arrive_and_drop();  // nobody is waited for any more
  }

  void follow(Runner& runner, int device) {
    while (!done_ && !resting_) {
      if (device <= busy_ && updating_) {
        runner.update(nullptr);
        ++updates_of_[static_cast<std::size_t>(device)];
      } else if (device <= busy_ && forwards_) {
        runner.forwards();
      } else if (device <= busy_) {
        runner.compute();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
    for (int step = 0; !done_; ++step) {
      gate_.arrive_and_wait();
      // Else devices would always be as far from each other in their micro-batches.
      constexpr double golden = 0.6180339887498949;
      std::this_thread::sleep_for(
          std::chrono::duration<double>(microbatch_seconds_ * std::fmod(golden * step * device, 1.0)));
      if (!done_) runner.compute();
    }
  }

  void lead(Runner& runner) {
    auto& times = runs_.levels;
    for (std::size_t level = 0; level < times.size() && !done_; ++level) {
      busy_ = static_cast<int>(level);
      // The fewer compute, the farther from its power limit the GPU is, and the steadier its clock.
      const double budget = budget_ * static_cast<double>(level + 1) / static_cast<double>(times.size());
      take_steps(runner, times[level], budget);
      for (auto& count : updates_of_) count = 0;
      updating_ = true;
      while (!neighbours_update() && !done_) runner.update(nullptr);
      for (int update = 0; update < updates && !done_; ++update) runner.update(&times[level]);
      updating_ = false;
    }
    // On cores a micro-batch that went forward has to go back before the next one comes.
    if (times.size() > 1 && training_.backend == Backend::cuda) {
      forwards_ = true;
      take_steps(runner, runs_.beside_forwards, budget_);
    }
    resting_ = true;
    for (const double rest : rests) runs_.rested.push_back(lead_with_rests(runner, rest));
    done_ = true;
  }

  void take_steps(Runner& runner, ShortTimes& times, double budget) {
    const auto start = Clock::now();
    // By the first one's end the neighbours have taken notice.
    bool settled = false;
    for (int taken = 0; !done_;) {
      runner.step(settled ? &times : nullptr);
      if (settled) ++taken;
      const double spent = seconds(Clock::now() - start);
      settled = settled || spent > settling * budget;
      if (taken >= most_steps || (taken >= least_steps && spent > budget)) break;
      if (stop_ != nullptr && *stop_) done_ = true;
    }
  }

  // All devices begin their steps when the first does, and rest when it has done its own.
  ShortRuns::Rested lead_with_rests(Runner& runner, double rest) {
    ShortRuns::Rested rested;
    rested.rest = rest;
    const auto start = Clock::now();
    int steps = 0;
    for (; !done_; ++steps) {
      gate_.arrive_and_wait();
      const auto begun = Clock::now();
      const bool settled = steps > 0 && seconds(begun - start) > settling * budget_;
      runner.step(settled ? &rested.times : nullptr);
      const auto ended = Clock::now();
      std::this_thread::sleep_for((ended - begun) * rest);
      rested.busy += Seconds(seconds(ended - begun));
      rested.resting += Seconds(seconds(Clock::now() - ended));
      microbatch_seconds_ = seconds(ended - begun) / microbatches;
      if (steps >= most_steps || (steps >= least_steps && seconds(Clock::now() - start) > budget_)) break;
      if (stop_ != nullptr && *stop_) done_ = true;
    }
    rested.busy = rested.busy / (steps + 1);
    rested.resting = rested.resting / (steps + 1);
    return rested;
  }

  bool neighbours_update() const {
    for (int device = 1; device <= busy_; ++device) {
      if (updates_of_[static_cast<std::size_t>(device)] == 0) return false;
    }
    return true;
  }

  const std::vector<Plan>& plans_;
  double share_of_ends_;
  const TrainingOptions& training_;
  double budget_;  // seconds of a condition under which all compute
  const std::atomic<bool>* stop_;
  ChannelNetwork network_;
  std::barrier<> gate_;
  std::atomic<bool> done_{false};
  std::atomic<int> busy_{0};                             // devices 1 to this one work
  std::atomic<bool> updating_{false}, forwards_{false};  // what these do, rather than steps without an update
  std::atomic<bool> resting_{false};
  std::atomic<double> microbatch_seconds_{0};
  std::vector<std::atomic<int>> updates_of_;  // by device, since `updating_` was set
  std::mutex mutex_;
  std::exception_ptr failure_;
  ShortRuns runs_;
};

}  // namespace

std::vector<bool> with_ends(double share, std::int64_t step, int count) {
  const auto due = [&](std::int64_t steps) { return static_cast<int>(share * count * static_cast<double>(steps)); };
  const int taken = std::max(1, due(step) - due(step - 1));
  std::vector<bool> ends(static_cast<std::size_t>(count), false);
  for (int i = 0; i < taken; ++i) ends[static_cast<std::size_t>((step + i * count / taken) % count)] = true;
  return ends;
}

Plan short_plan(Plan whole, DeviceId device) {
  Transformer& t = *whole.network.transformer;
  t.layers = few_blocks + more_blocks;
  whole.network.graph = build_graph(t);
  whole.batch.microbatches = microbatches;
  whole.batch.global = whole.batch.microbatch * microbatches;
  whole.order = topological_order(whole.network.graph);
  whole.stages.clear();
  std::int64_t first = 0;
  for (const std::int64_t layers : {std::int64_t{1}, few_blocks, more_blocks, std::int64_t{1}}) {
    whole.stages.push_back({{first, first + layers}, RankId{0}, {}, {}});
    first += layers;
  }
  whole.devices = {{device}};
  whole.schedule = one_rank(whole.cluster.devices.size() > 1 ? 1 : 0);
  return whole;
}

SumTimes run_sums(const Plan& plan, const TrainingOptions& training) {
  constexpr int repetitions = 10, warm_up = 3;
  ChannelNetwork network(plan.replicas(), {});
  const LoweredSchedule schedule = plan.lowered();
  const Placement placement(plan.schedule);
  const auto& actions = schedule.ranks.front();
  const auto reduction = static_cast<std::size_t>(
      std::find_if(actions.begin(), actions.end(), [](const Action& a) { return a.kind == ActionKind::reduce_grad; }) -
      actions.begin());
  std::vector<std::vector<double>> seconds_of(static_cast<std::size_t>(plan.replicas()));
  std::int64_t bytes = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  for (int replica = 0; replica < plan.replicas(); ++replica) {
    threads.emplace_back([&, replica] {
      try {
        const auto transport = network.endpoint(replica);
        const auto executor = make_executor(
            {plan, schedule, placement, training, *transport, [](auto, auto, auto, auto) {}, {replica, 0, 0}});
        if (replica == 0) bytes = executor->bytes_of(actions[reduction]);
        for (int step = 1; step <= warm_up + repetitions; ++step) {
          executor->begin_step(step, true);
          executor->reduce(reduction);
          executor->end_step();
          const auto when = executor->device_time(reduction);
          if (step > warm_up && when) {
            seconds_of[static_cast<std::size_t>(replica)].push_back(seconds(when->end - when->start));
          }
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        network.abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  // Who comes first waits for the other: the shorter of the two times is the sum's.
  SumTimes times{seconds_of.front(), bytes};
  for (std::size_t i = 0; i < times.seconds.size(); ++i) {
    times.seconds[i] = std::min(times.seconds[i], seconds_of.back()[i]);
  }
  return times;
}

ShortRuns run_short(const std::vector<Plan>& plans, double share_of_ends, int levels, const TrainingOptions& training,
                    Seconds budget, const std::atomic<bool>* stop) {
  return Measurement(plans, share_of_ends, levels, training, budget, stop).run();
}

}  // namespace stagecraft::cuda
