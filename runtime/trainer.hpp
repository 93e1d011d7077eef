// Executes a plan on real devices: trains the plan's network on text and records what happened when.
//
// A worker (one pipeline rank of one replica) is a thread, or a process under MPI, with a CPU core, a GPU or a slice of
// one. On CPUs, in single precision, both give the same losses bit for bit, and so does any thread timing.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "models/plan.hpp"
#include "models/trace.hpp"
#include "models/units.hpp"

namespace stagecraft {

class MpiSession;

// Where a plan runs.
enum class Backend { cpu, cuda };

enum class LearningRateSchedule { constant, cosine };

struct OptimizerOptions {
  double learning_rate = 1e-3;
  LearningRateSchedule schedule = LearningRateSchedule::cosine;
  std::int64_t warmup_steps = 0;        // linear from 0
  std::int64_t decay_steps = 0;         // the cosine ends here; 0: at TrainingOptions::steps
  double final_learning_rate = 0;       // where the cosine ends
  double beta1 = 0.9, beta2 = 0.95;     // AdamW
  double epsilon = 1e-8;                // AdamW
  double momentum = 0.9;                // SGD
  double weight_decay = 0.1;            // on matrices, not on biases and norms
  std::optional<double> clip_norm = 1;  // longest gradient, over all parameters; empty: not clipped
};

struct TrainingOptions {
  Backend backend = Backend::cpu;
  std::int64_t steps = 10;                     // the last step's number, resumed ones included
  std::optional<std::uint64_t> seed;           // of parameters and batches; empty: the checkpoint's, else 1
  std::vector<std::filesystem::path> data;     // token_data.hpp has the formats
  OptimizerOptions optimizer;                  // which one is the plan's choice
  std::filesystem::path checkpoint_directory;  // empty: none written
  std::int64_t checkpoint_interval = 0;        // steps; 0: only at the end and at a stop
  std::filesystem::path resume;                // a checkpoint, or a folder: its newest; empty: from the start
  std::filesystem::path weights;               // to start from, as hugging_face_weights.hpp; empty: random ones
  int trace_steps = 5;                         // the last ones are traced; 0: none, nor is a trace's cost paid
  bool pin = true;                             // workers to distinct cores, when there are enough
  bool oversubscribe = false;                  // allow more workers than cores
  std::chrono::milliseconds peer_timeout{120000};
  bool deterministic = false;                    // GPUs: every run gives the same bits (with the same algorithms)
  std::filesystem::path algorithm_cache;         // of matrix products on GPUs; empty: they are timed in every run
  const std::atomic<bool>* stop = nullptr;       // set: finish the step, write a checkpoint, return
  const std::atomic<bool>* terminate = nullptr;  // set: end every wait now and throw what was waited for
};

struct StepReport {
  std::int64_t step = 0;  // from 1
  double loss = 0;        // mean over the global batch
  Seconds time;
  double tokens_per_second = 0;
  double gradient_norm = 0;  // before clipping; 0 when not clipped
  double learning_rate = 0;
  Seconds host_per_action;  // to compute or send, on the slowest rank; on a GPU that is to enqueue it
};
using StepCallback = std::function<void(const StepReport&)>;

// What train() throws before the first step, so that nothing is started in vain: bad_input for a network without a
// description (hand-written graphs, mixture of experts) and for what the backend does not do (precisions, schedules);
// device when the plan's devices are not here. `processes` is 1 for threads.
void check_runnable(const Plan& plan, const TrainingOptions& options, const MpiSession* mpi = nullptr);

// Trains. With `mpi`, every process calls this with the same arguments; process 0 alone calls back and returns the
// whole trace (the others' is empty of events and losses).
// Stops after a step whose loss is not finite: that loss is the trace's last, its last warning says so, and no
// checkpoint is written any more. A step's loss is that of the parameters before it: where the step before wrote a
// checkpoint, the warning says that this one gives that loss.
// Throws as check_runnable; bad_input for data and checkpoints; device when a worker fails or a peer is silent, with
// the rank and action it concerns. After a throw under MPI, report it and call MpiSession::abort.
// The trace's source is "cpu" or "cuda"; its first warning, if any, says what disturbed the measurement.
Trace train(const Plan& plan, const TrainingOptions& options, const StepCallback& callback = {},
            MpiSession* mpi = nullptr);

}  // namespace stagecraft
