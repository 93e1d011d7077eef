#include "sim/simgrid_execution.hpp"

#include <algorithm>
#include <cmath>
#include <simgrid/kernel/Timer.hpp>
#include <utility>
#include <vector>

#include "models/error.hpp"
#include "sim/sharing.hpp"
#include "sim/simgrid_communications.hpp"

namespace stagecraft {
namespace {

namespace sg = simgrid::s4u;
using simgrid::kernel::timer::Timer;
using Span = Timeline::Span;

std::size_t index(int value) { return static_cast<std::size_t>(value); }

// Interprets the action lists of the representatives in SimGrid's virtual time.
//
// There are no actors and no task graph: each rank has a cursor, and whatever ends (a timer for computation, a
// communication) moves the cursors on that waited for it. So SimGrid only ever holds what is in flight; the cost of its
// bookkeeping grows with that, not with the plan.
class Execution {
 public:
  Execution(const Plan& plan, const LoweredSchedule& schedule, const Traffic& traffic, const Folding& folding,
            const SimGridPlatform& platform, double byte_scale, Span* spans)
      : plan_(plan),
        schedule_(schedule),
        traffic_(traffic),
        slots_(traffic.replicas.front().size()),
        representatives_(folding.representatives.size()),
        messages_(2 * index(schedule.stages) * index(schedule.microbatches)),
        arrived_(representatives_ * messages_, 0),
        waiting_(representatives_ * messages_, -1),
        stage_states_(2 * representatives_ * index(schedule.stages)),
        tied_(representatives_),
        grads_(index(schedule.stages)),
        communications_([this](std::size_t number) { end_transfer(transfers_[number]); }),
        neighbours_(neighbours_of(plan.cluster, plan.devices, folding.representative_of)),
        progress_(neighbours_),
        held_(representatives_),
        spans_(spans) {
    for (const int replica : folding.representatives) {
      for (const Flow& flow : traffic.replicas[index(replica)]) add_channel(flow, platform, byte_scale);
      for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
        workers_.push_back({static_cast<int>(workers_.size() / schedule.ranks.size()), static_cast<int>(rank),
                            &schedule.ranks[rank], 0, actions_});
        actions_ += schedule.ranks[rank].size();
      }
    }
    shared_.resize(workers_.size());
    stepping_ranks_ = static_cast<std::size_t>(
        std::count_if(schedule.ranks.begin(), schedule.ranks.end(), [](const std::vector<Action>& actions) {
          return std::any_of(actions.begin(), actions.end(),
                             [](const Action& action) { return action.kind == ActionKind::optimizer_step; });
        }));
  }

  void run(sg::Engine& engine) {
    for (std::size_t worker = 0; worker < workers_.size(); ++worker) advance(worker);
    engine.run();
    for (const Worker& worker : workers_) {
      if (worker.position != worker.actions->size()) {
        throw Error(ErrorKind::internal,
                    fmt::format("SimGrid stopped before {} ended", to_string((*worker.actions)[worker.position])));
      }
    }
  }

 private:
  // One rank of one representative.
  struct Worker {
    int representative;
    int rank;
    const std::vector<Action>* actions;
    std::size_t position;
    std::size_t first_span;
  };
  // A flow, looked up once.
  struct Channel {
    std::size_t way = 0;  // of communications_
    std::uint64_t payload = 0;
    double wait = 0;  // seconds: latencies of all steps of a ring hop but the one that SimGrid adds
  };
  enum class Purpose { message, tied, grad };
  struct Transfer {
    Purpose purpose = Purpose::message;
    int representative = 0;
    std::size_t message = 0;  // of a message
    int stage = 0;            // of a reduction
    std::size_t span = 0;     // of the SEND
  };
  // Reductions of one stage on one rank of one representative.
  struct StageState {
    int open = 0;                // reached, not ended
    bool grad_deferred = false;  // REDUCE_GRAD reached, waiting for REDUCE_TIED
    std::size_t tied_span = 0, grad_span = 0;
    std::ptrdiff_t stepper = -1;  // worker that waits to begin STEP
  };
  // What a worker computes that shares a GPU.
  struct Shared {
    SharedWork work;
    std::size_t span = 0;
  };
  // Workers of a representative that wait to begin their optimizer steps.
  struct Held {
    std::vector<std::size_t> workers;
    bool released = false;
  };
  struct Collective {
    std::size_t joined = 0;
    int phase = 0;
    std::size_t pending = 0;
    double start = 0;
  };

  static double now() { return sg::Engine::get_clock(); }

  void add_channel(const Flow& flow, const SimGridPlatform& platform, double byte_scale) {
    Channel channel;
    if (flow.from != flow.to) {
      const auto [from, to] = platform.ends(flow);
      channel.way = communications_.way(from, to);
      channel.payload = static_cast<std::uint64_t>(std::llround(flow.bytes.value() * byte_scale));
      channel.wait = (flow.steps - 1) * plan_.cluster.path(flow.from, flow.to).latency.value();
    }
    channels_.push_back(channel);
  }
  const Channel& channel(int representative, std::size_t slot) const {
    return channels_[index(representative) * slots_ + slot];
  }
  // `sharer`: 0 on the stage's first rank, 1 on its second.
  StageState& state(int representative, int stage, int sharer) {
    return stage_states_[2 * (index(representative) * index(schedule_.stages) + index(stage)) + index(sharer)];
  }
  StageState& state(const Worker& worker, int stage) {
    return state(worker.representative, stage, plan_.stages[index(stage)].rank.value == worker.rank ? 0 : 1);
  }
  static bool is_forward(ActionKind kind) {
    return kind == ActionKind::send_forward || kind == ActionKind::recv_forward;
  }
  // The earlier of the two stages that a message goes between.
  static int hop_of(const Action& action) {
    const bool to_next = action.kind == ActionKind::send_forward || action.kind == ActionKind::recv_backward;
    return action.stage.value - (to_next ? 0 : 1);
  }
  std::size_t message_of(int representative, const Action& action) const {
    const std::size_t direction = 2 * index(hop_of(action)) + (is_forward(action.kind) ? 0 : 1);
    return index(representative) * messages_ + direction * index(schedule_.microbatches) +
           index(action.microbatch.value);
  }
  // Goes on with a rank's list until it is busy or has to wait.
  void advance(std::size_t worker_index) {
    Worker& worker = workers_[worker_index];
    while (worker.position < worker.actions->size()) {
      const Action& action = (*worker.actions)[worker.position];
      const std::size_t span = worker.first_span + worker.position;
      switch (action.kind) {
        case ActionKind::send_forward:
        case ActionKind::send_backward:
          spans_[span].start = Seconds(now());
          send(worker.representative, action, span);
          break;
        case ActionKind::recv_forward:
        case ActionKind::recv_backward:
          spans_[span] = {Seconds(now()), Seconds(now())};
          if (arrived_[message_of(worker.representative, action)] == 0) {
            waiting_[message_of(worker.representative, action)] = static_cast<std::ptrdiff_t>(worker_index);
            return;
          }
          break;
        case ActionKind::unshard:
        case ActionKind::reshard:
          spans_[span] = {Seconds(now()), Seconds(now())};
          break;
        case ActionKind::reduce_tied:
        case ActionKind::reduce_grad:
          reduce(worker, action, span);
          break;
        default:
          if (!occupy(worker_index, action, span)) return;
          worker.position++;
          return;
      }
      ++worker.position;
    }
  }

  // Computes; false when the optimizer step has to wait for a reduction first.
  bool occupy(std::size_t worker, const Action& action, std::size_t span) {
    if (action.kind == ActionKind::optimizer_step) {
      StageState& stage = state(workers_[worker], action.stage.value);
      if (stage.open > 0) {
        stage.stepper = static_cast<std::ptrdiff_t>(worker);
        return false;
      }
      if (!may_step(worker, action)) return false;
    }
    spans_[span].start = Seconds(now());
    const StageCost& cost = plan_.stages[index(action.stage.value)].cost;
    if (neighbours_.empty()) {
      Timer::set(now() + duration(cost.times(), action.kind), [this, worker, span] { end_computation(worker, span); });
      return true;
    }
    Shared& shared = shared_[worker];
    shared.span = span;
    shared.work = shared_work(cost, action.kind);
    progress_.start(static_cast<int>(worker), now(), shared.work);
    await_shared();
    return true;
  }

  void end_computation(std::size_t worker, std::size_t span) {
    spans_[span].end = Seconds(now());
    advance(worker);
  }

  // Of those that share GPUs: whoever ends next, unless something begins or ends before.
  void await_shared() {
    const auto end = progress_.next();
    ++awaited_;
    if (!end) return;
    Timer::set(std::max(now(), end->time), [this, worker = end->worker, awaited = awaited_] {
      if (awaited != awaited_) return;
      progress_.finish(worker, now());
      end_computation(index(worker), shared_[index(worker)].span);
      await_shared();
    });
  }

  // On shared GPUs the optimizer steps of a replica begin together (timeline_play.cpp).
  bool may_step(std::size_t worker, const Action& action) {
    const int representative = workers_[worker].representative;
    Held& held = held_[index(representative)];
    if (neighbours_.empty() || action.microbatch.value >= 0 || held.released) return true;
    held.workers.push_back(worker);
    if (held.workers.size() < stepping_ranks_) return false;
    held.released = true;
    held.workers.pop_back();
    for (const std::size_t other : held.workers) advance(other);
    return true;
  }

  void send(int representative, const Action& action, std::size_t span) {
    const int hop = hop_of(action);
    const int way = traffic_.ways.of(action.microbatch);
    const std::size_t slot =
        is_forward(action.kind) ? traffic_.forward_slot(way, hop) : traffic_.backward_slot(way, hop);
    start_transfer(channel(representative, slot),
                   {Purpose::message, representative, message_of(representative, action), 0, span});
  }

  void start_transfer(const Channel& channel, const Transfer& transfer) {
    const std::size_t number = communications_.reserve(channel.way);
    if (number >= transfers_.size()) transfers_.resize(number + 1);
    transfers_[number] = transfer;
    const auto start = [this, number, bytes = channel.payload] { communications_.start(number, bytes); };
    if (channel.wait > 0) {
      Timer::set(now() + channel.wait, start);
    } else {
      start();
    }
  }

  void end_transfer(Transfer transfer) {
    switch (transfer.purpose) {
      case Purpose::message:
        spans_[transfer.span].end = Seconds(now());
        deliver(transfer.message);
        break;
      case Purpose::tied:
        if (--tied_[index(transfer.representative)].pending == 0) end_tied(transfer.representative);
        break;
      case Purpose::grad:
        if (--grads_[index(transfer.stage)].pending == 0) start_grad_phase(transfer.stage);
        break;
    }
  }

  void deliver(std::size_t message) {
    arrived_[message] = 1;
    if (waiting_[message] < 0) return;
    const auto worker = index(static_cast<int>(waiting_[message]));
    spans_[workers_[worker].first_span + workers_[worker].position].end = Seconds(now());
    ++workers_[worker].position;
    advance(worker);
  }

  void reduce(const Worker& worker, const Action& action, std::size_t span) {
    const int representative = worker.representative;
    StageState& stage = state(worker, action.stage.value);
    ++stage.open;
    if (action.kind == ActionKind::reduce_tied) {
      stage.tied_span = span;
      if (++tied_[index(representative)].joined == 2) start_tied(representative);
      return;
    }
    stage.grad_span = span;
    // The only reduction that can be open before is that of the tied table.
    stage.grad_deferred = stage.open > 1;
    if (!stage.grad_deferred) join_grad(action.stage.value);
  }

  void start_tied(int representative) {
    Collective& tied = tied_[index(representative)];
    tied.start = now();
    tied.pending = 2;
    for (const bool from_last : {false, true}) {
      start_transfer(channel(representative, traffic_.tied_slot(from_last)), {Purpose::tied, representative, 0, 0, 0});
    }
  }

  void end_tied(int representative) {
    for (const int end : {0, schedule_.stages - 1}) {
      StageState& stage = state(representative, end, 0);
      spans_[stage.tied_span] = {Seconds(tied_[index(representative)].start), Seconds(now())};
      end_reduction(stage);
      if (std::exchange(stage.grad_deferred, false)) join_grad(end);
    }
  }

  void join_grad(int stage) {
    Collective& grad = grads_[index(stage)];
    if (++grad.joined < participants(stage)) return;
    grad.start = now();
    start_grad_phase(stage);
  }

  std::size_t participants(int stage) const { return representatives_ * index(traffic_.sharers[index(stage)]); }

  // All participants begin a phase together; after the last one the reduction has ended.
  void start_grad_phase(int stage) {
    Collective& grad = grads_[index(stage)];
    const int sharers = traffic_.sharers[index(stage)];
    if (grad.phase < traffic_.grad_phases(stage)) {
      const int phase = grad.phase++;
      grad.pending = participants(stage);
      for (int r = 0; r < static_cast<int>(representatives_); ++r) {
        for (int sharer = 0; sharer < sharers; ++sharer) {
          start_transfer(channel(r, traffic_.grad_slot(stage, phase, sharer)), {Purpose::grad, r, 0, stage, 0});
        }
      }
      return;
    }
    for (int r = 0; r < static_cast<int>(representatives_); ++r) {
      for (int sharer = 0; sharer < sharers; ++sharer) {
        StageState& reduced = state(r, stage, sharer);
        spans_[reduced.grad_span] = {Seconds(grad.start), Seconds(now())};
        end_reduction(reduced);
      }
    }
  }

  void end_reduction(StageState& stage) {
    if (--stage.open > 0 || stage.stepper < 0) return;
    advance(static_cast<std::size_t>(std::exchange(stage.stepper, -1)));
  }

  const Plan& plan_;
  const LoweredSchedule& schedule_;
  const Traffic& traffic_;
  std::size_t slots_;  // flows a replica
  std::size_t representatives_;
  std::size_t messages_;  // a representative
  std::size_t actions_ = 0;
  std::vector<Channel> channels_;         // by representative, slot
  std::vector<Worker> workers_;           // by representative, rank
  std::vector<std::uint8_t> arrived_;     // by representative, message
  std::vector<std::ptrdiff_t> waiting_;   // likewise: the worker that waits for it, or -1
  std::vector<StageState> stage_states_;  // by representative, stage, sharer
  std::vector<Collective> tied_;          // by representative
  std::vector<Collective> grads_;         // by stage
  Communications communications_;
  std::vector<Transfer> transfers_;  // by number of the communication
  Neighbours neighbours_;            // of workers that share GPUs
  SharedProgress progress_;
  std::vector<Shared> shared_;  // by worker
  std::vector<Held> held_;      // by representative
  std::size_t stepping_ranks_ = 0;
  std::uint64_t awaited_ = 0;  // which of the timers for progress_ counts
  Span* spans_;                // by representative, rank, position
};

}  // namespace

void execute(sg::Engine& engine, const Plan& plan, const LoweredSchedule& schedule, const Traffic& traffic,
             const Folding& folding, const SimGridPlatform& platform, double byte_scale, Timeline::Span* spans) {
  Execution(plan, schedule, traffic, folding, platform, byte_scale, spans).run(engine);
}

}  // namespace stagecraft
