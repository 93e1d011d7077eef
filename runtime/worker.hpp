// One pipeline rank of one replica: interprets its list of actions on its stages.
//
// It knows no schedule names. Communication is in the list; the worker adds none but the clipping of the gradient. A
// reduction leaves the rank free: it runs at the last moment, when a STEP waits for it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "models/plan.hpp"
#include "models/trace.hpp"
#include "runtime/cpu/stage.hpp"
#include "runtime/memory_pool.hpp"
#include "runtime/token_data.hpp"
#include "runtime/trainer.hpp"
#include "runtime/transport.hpp"
#include "runtime/weight_versions.hpp"

namespace stagecraft {

struct StepResult {
  double loss_sum = 0;       // of the micro-batches, in their order; 0 without the head
  double gradient_norm = 0;  // of all parameters, before clipping; 0 when not clipped
};

class Worker {
 public:
  // Takes all memory that the plan foresees. `data` and `transport` must outlive the worker.
  // REQUIRES: a runnable plan; transport.worker() = replica * plan.ranks() + rank.
  Worker(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options, const TokenData& data,
         Transport& transport);

  // Runs step `step` (from 1). `origin`: when it started, for the events. Errors name rank and action.
  StepResult run_step(std::int64_t step, std::chrono::steady_clock::time_point origin);

  std::vector<cpu::Stage*> stages();
  // The events of the last TrainingOptions::trace_steps steps, oldest first.
  std::vector<TraceEvent> events() const;
  std::int64_t peak_bytes() const { return pool_.peak_bytes() + transport_.buffer_bytes(); }
  std::int64_t allocations() const { return pool_.allocations(); }
  void set_seed(std::uint64_t seed) { seed_ = seed; }

 private:
  using Key = std::pair<int, std::int64_t>;  // stage, micro-batch

  void make_stages();
  void reserve_memory();
  // The stage where this rank runs it for this micro-batch, else null.
  cpu::Stage* local(int stage, std::int64_t microbatch);
  cpu::Stage& stage_of(const Action& action) { return *stages_.at(action.stage.value); }
  int worker_of(RankId rank) const { return replica_ * plan_.ranks() + rank.value; }

  void execute(const Action& action);
  void compute(const Action& action);
  void forward(const Action& action);
  void backward(const Action& action);
  void open(int stage, std::int64_t microbatch);
  int peer_of(const Action& action) const;
  std::string describe_peer(const Action& action) const;
  void send(const Action& action, std::map<Key, Buffer>& made);
  void receive(const Action& action);
  void finish_gradients();
  void clip();
  void reduce(const Action& action);
  void optimizer_step(const Action& action);
  void update(const Action& action);
  void record(const Action& action, std::chrono::steady_clock::time_point start, std::int64_t bytes);

  const Plan& plan_;
  const std::vector<Action>& actions_;
  Placement placement_;
  const OptimizerOptions& optimizer_;
  const TokenData& data_;
  Transport& transport_;
  int replica_, rank_;
  std::uint64_t seed_ = 1;
  std::int64_t last_step_;

  MemoryPool pool_;
  std::map<int, std::unique_ptr<cpu::Stage>> stages_;  // by stage number
  std::map<int, VersionedWeights> versions_;           // by stage number, in asynchronous schedules
  Buffer workspace_, scratch_;
  // Tensors between compute and messages, from producer to consumer.
  std::map<Key, Buffer> outputs_;    // made by a forward, for the next stage
  std::map<Key, Buffer> d_outputs_;  // arrived for a backward
  std::map<Key, Buffer> d_inputs_;   // made by a backward, for the previous stage

  // Of the step that runs.
  std::int64_t step_ = 0;
  std::chrono::steady_clock::time_point origin_;
  StepResult result_;
  std::vector<std::int32_t> sample_;  // tokens and targets of a sample, all slices
  std::vector<Action> pending_;       // reductions
  double gradient_scale_ = 1;
  bool gradients_finished_ = false;
  std::vector<std::vector<TraceEvent>> events_;  // by step % trace_steps
};

}  // namespace stagecraft
