// What a rank's device does for the actions of its list: the memory of the rank's stages, their operations, and the
// messages between them.
//
// The worker calls it in the order of the list. On a CPU the work is done when a call returns; on a GPU it may only be
// enqueued, and end_step() waits for all of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "models/plan.hpp"
#include "runtime/parameters.hpp"
#include "runtime/tensor_shard.hpp"
#include "runtime/trainer.hpp"
#include "runtime/transport.hpp"
#include "runtime/worker_grid.hpp"

namespace stagecraft {

// Fetches the tokens and targets of a micro-batch (or slice); each span holds a stage's rows, or nothing when it is not
// wanted.
using Fetch = std::function<void(std::int64_t step, std::int64_t microbatch, std::span<std::int32_t> tokens,
                                 std::span<std::int32_t> targets)>;

// What an executor is made for. Everything outlives it.
struct ExecutorContext {
  const Plan& plan;
  const LoweredSchedule& schedule;
  const Placement& placement;
  const TrainingOptions& options;
  Transport& transport;
  Fetch fetch;
  WorkerPlace place;
  const std::vector<Action>& actions() const { return schedule.ranks[static_cast<std::size_t>(place.rank)]; }
  // Of the same replica and shard.
  int worker_of(RankId other) const { return worker_number(plan, {place.replica, place.shard, other.value}); }
  // The other end of a SEND or RECV.
  int peer_of(const Action& action) const {
    const bool next = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_backward;
    return worker_of(placement.rank(StageId{action.stage.value + (next ? 1 : -1)}, action.microbatch));
  }
  // The shards of this rank, in their order.
  std::vector<int> shard_workers() const {
    std::vector<int> workers;
    workers.reserve(static_cast<std::size_t>(plan.shards()));
    for (int shard = 0; shard < plan.shards(); ++shard) {
      workers.push_back(worker_number(plan, {place.replica, shard, place.rank}));
    }
    return workers;
  }
  // Who sums the gradients of a stage: this shard of all replicas, on all ranks that have the stage.
  std::vector<int> replica_workers(StageId stage) const {
    std::vector<int> workers;
    for (int replica = 0; replica < plan.replicas(); ++replica) {
      for (const RankId rank : placement.ranks(stage)) {
        workers.push_back(worker_number(plan, {replica, place.shard, rank.value}));
      }
    }
    return workers;
  }
};

class Executor {
 public:
  using Clock = std::chrono::steady_clock;
  struct Interval {
    Clock::time_point start, end;
  };

  virtual ~Executor() = default;

  // Of all stages of the rank, in their order; `parameter` below is a position in this list.
  virtual const std::vector<HeldParameter>& parameters() const = 0;
  // Elements [first, first + size) of what is held of a value (state -1) or of the optimizer's state (state_names).
  virtual void read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const = 0;
  virtual void write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) = 0;
  // Who keeps what of a value or state that the replicas share (ZeRO), in order: all of them together the whole. Then
  // read() gives elements that this replica keeps, and write() is handed the whole and takes its part. Empty: every
  // replica has all.
  struct Share {
    int replica = 0;
    std::int64_t first = 0, last = 0;  // elements [first, last)
  };
  virtual std::vector<Share> shares(std::size_t /*parameter*/, int /*state*/) const { return {}; }

  // `timed`: device_time() will be asked for after the step.
  virtual void begin_step(std::int64_t step, bool timed) = 0;
  // `index`: of the action in the rank's list. `peer`: the worker at the other end.
  virtual void compute(std::size_t index) = 0;  // F B I W
  virtual void send(std::size_t index, int peer) = 0;
  virtual void receive(std::size_t index, int peer) = 0;
  // A sum over ranks; called at the last moment, in one order on all ranks.
  virtual void reduce(std::size_t index) = 0;
  // Once a step, after its last gradient and before the reductions: with sequence parallelism the shards of the rank
  // complete the gradients of the norms.
  virtual void sum_shard_gradients() = 0;
  // Of the gradients of the stages that this rank owns, after the reductions. A stage on two ranks counts on the first,
  // a tensor that all shards hold whole on the first of them.
  virtual double squared_gradient_norm() = 0;
  // STEP with this learning rate: gradients are multiplied by `gradient_scale`, and then forgotten.
  virtual void optimizer_step(std::size_t index, double rate, double gradient_scale) = 0;
  // Returns the sum of the micro-batches' losses, in their order; 0 without the head. Shards know all of it alike.
  virtual double end_step() = 0;

  // When the device ran an action of the last step, which was timed; nothing where it ran within the call.
  virtual std::optional<Interval> device_time(std::size_t /*index*/) const { return std::nullopt; }
  // Mean clock of the device's cores during the last step, in Hz; nothing where they do not say.
  virtual std::optional<double> clock() const { return std::nullopt; }
  // Bytes that a message carries, or a reduction sums.
  virtual std::int64_t bytes_of(const Action& action) const = 0;
  // Memory that the executor holds, and how often it asked for some.
  virtual std::int64_t peak_bytes() const = 0;
  virtual std::int64_t allocations() const = 0;
};

// Writes the worker's slice of a parameter, or of its optimizer's state, out of all of it.
void write_slice(Executor& executor, std::size_t parameter, int state, std::span<const float> whole);

}  // namespace stagecraft
