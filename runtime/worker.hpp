// One device of the plan: a pipeline rank of a replica, or one of the rank's shards. Interprets the rank's list of
// actions; the shards of a rank do so side by side, each with its part of every layer.
//
// It knows no schedule names and no devices. Communication is in the list; the worker adds none but the clipping of the
// gradient. A reduction leaves the rank free: it runs at the last moment, when a STEP waits for it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/plan.hpp"
#include "models/trace.hpp"
#include "runtime/executor.hpp"
#include "runtime/token_data.hpp"
#include "runtime/trainer.hpp"
#include "runtime/transport.hpp"
#include "runtime/worker_grid.hpp"

namespace stagecraft {

struct StepResult {
  double loss_sum = 0;       // of the micro-batches, in their order; 0 without the head
  double gradient_norm = 0;  // of all parameters, before clipping; 0 when not clipped
  double host_time = 0;      // seconds in calls that compute or send: on a GPU, that enqueue it
};

class Worker {
 public:
  // Takes all memory that the plan foresees. `data` and `transport` must outlive the worker.
  // REQUIRES: a runnable plan; transport.worker() is numbered as worker_grid.hpp says.
  Worker(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options, const TokenData& data,
         Transport& transport);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Runs step `step` (from 1). `origin`: when it started, for the events. Errors name rank and action.
  StepResult run_step(std::int64_t step, std::chrono::steady_clock::time_point origin);

  // The rank's parameters, for loading and saving.
  Executor& executor() { return *executor_; }
  // The events of the last TrainingOptions::trace_steps steps, oldest first.
  std::vector<TraceEvent> events() const;
  // Median of the same steps, in Hz; 0 where the device does not say.
  double clock() const;
  std::int64_t peak_bytes() const { return executor_->peak_bytes() + transport_.buffer_bytes(); }
  std::int64_t allocations() const { return executor_->allocations(); }
  // Sets the values of all parameters as if training began, and draws batches, with this seed.
  void initialize(std::uint64_t seed);
  void set_seed(std::uint64_t seed) { seed_ = seed; }

 private:
  // An event and the position of its action in the list.
  struct Recorded {
    std::size_t index;
    TraceEvent event;
  };

  void execute(std::size_t index);
  void count_host_time(std::chrono::steady_clock::time_point start);
  int peer_of(const Action& action) const;
  std::string describe_peer(const Action& action) const;
  void fetch(std::int64_t step, std::int64_t microbatch, std::span<std::int32_t> tokens,
             std::span<std::int32_t> targets);
  void finish_gradients();
  void clip();
  void step(std::size_t index);
  void record(std::size_t index, std::chrono::steady_clock::time_point start, std::int64_t bytes);
  void take_device_times();
  std::vector<Recorded>& recorded() { return events_[static_cast<std::size_t>(step_) % events_.size()]; }

  const Plan& plan_;
  const std::vector<Action>& actions_;
  Placement placement_;
  const OptimizerOptions& optimizer_;
  const TokenData& data_;
  Transport& transport_;
  WorkerPlace place_;
  std::string name_;  // for errors
  std::uint64_t seed_ = 1;
  std::int64_t last_step_;
  int threads_;                       // for what the host does before the steps
  std::vector<std::int32_t> sample_;  // tokens and targets of a sample, all slices
  std::unique_ptr<Executor> executor_;

  // Of the step that runs.
  std::int64_t step_ = 0;
  std::chrono::steady_clock::time_point origin_;
  StepResult result_;
  std::vector<std::size_t> pending_;  // reductions
  double gradient_scale_ = 1;
  bool gradients_finished_ = false;
  std::vector<std::vector<Recorded>> events_;  // by step % trace_steps
  std::vector<double> clocks_;                 // likewise
};

}  // namespace stagecraft
