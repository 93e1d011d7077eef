// Which weights a micro-batch sees in an asynchronous schedule, whose updates do not wait for the step's end.
//
// Versions count a stage's updates since the step began: version 0 is what the step found. Forward and backward of a
// micro-batch use one version, so its gradient is that of a function that existed (docs/schedules.md).
//   pipedream      what the stage has when the forward runs: weight stashing (Narayanan et al. 2019, section 3.3)
//   vertical_sync  what stage 0 has when the micro-batch's forward runs there
//   two_buffered   that of the group before the last: micro-batch m of group g = m / update_group uses version
//                  max(0, g - 1) (PipeDream-2BW: Narayanan et al. 2021, section 3.1)
#pragma once

#include <map>
#include <vector>

#include "models/schedule/schedule.hpp"
#include "runtime/cpu/parameters.hpp"
#include "runtime/memory_pool.hpp"

namespace stagecraft {

// By micro-batch. Throws bad_input when a version does not exist yet when the schedule wants it.
// REQUIRES: a schedule that passed check(), asynchronous.
std::vector<int> weight_versions(const ComputeSchedule& schedule, StageId stage);

// The most old versions that a stage keeps at once; 0 in synchronous schedules.
int most_versions(const ComputeSchedule& schedule, StageId stage);

// The versions of one stage while a step runs: the current one in the stage's parameters, older ones as copies for as
// long as a micro-batch will need them.
class VersionedWeights {
 public:
  VersionedWeights(const ComputeSchedule& schedule, StageId stage, cpu::ParameterStore& parameters, MemoryPool& pool);

  void begin_step();
  // Runs `work` with the weights of this micro-batch in the parameters.
  template <class Work>
  auto with(MicrobatchId microbatch, Work&& work) {
    const Exchange exchange(*this, needed_[static_cast<std::size_t>(microbatch.value)]);
    return work();
  }
  // After the micro-batch's weight gradient: its version may go.
  void done(MicrobatchId microbatch);
  // Before an update.
  void keep_current();
  void count_update() { ++current_; }
  int updates() const { return current_; }

 private:
  // Puts a kept version into the parameters, and takes it out again.
  class Exchange {
   public:
    Exchange(VersionedWeights& weights, int version);
    ~Exchange();
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

   private:
    void swap();
    VersionedWeights& weights_;
    int version_;
  };

  cpu::ParameterStore& parameters_;
  MemoryPool& pool_;
  std::vector<int> needed_;  // version by micro-batch
  int current_ = 0;
  std::map<int, int> uses_left_;  // by version: micro-batches that are not done
  std::map<int, Buffer> kept_;    // by version, older than the current
};

}  // namespace stagecraft
