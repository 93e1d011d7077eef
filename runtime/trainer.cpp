#include "runtime/trainer.hpp"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <exception>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "kernels/cpu/linear.hpp"
#include "models/text.hpp"
#include "models/version.hpp"
#include "runtime/affinity.hpp"
#include "runtime/checkpoint.hpp"
#include "runtime/cuda/requirements.hpp"
#include "runtime/hugging_face_weights.hpp"
#include "runtime/memory_need.hpp"
#include "runtime/network_check.hpp"
#include "runtime/token_data.hpp"
#include "runtime/transport.hpp"
#include "runtime/worker.hpp"
#include "runtime/worker_grid.hpp"

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

enum class Order : std::int32_t { step, checkpoint, finish };

// From worker 0 to the others: what to do next.
struct Command {
  Order order = Order::finish;
  std::int64_t step = 0;
  std::int64_t start = 0;  // worker 0's steady_clock
};

// From every worker to worker 0 at the end of a step.
struct Outcome {
  double loss_sum = 0;
  double gradient_norm = 0;
  double host_per_action = 0;  // seconds
  std::int64_t end = 0;        // steady_clock
  std::int32_t stop = 0;
  std::int32_t switches = 0;  // of threads on this core, since the run began
};

constexpr MessageTag control{Lane::control, 0, -1};

template <class T>
std::span<std::byte> bytes_of(T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_writable_bytes(std::span(&value, 1));
}

// The training loop of one worker. Worker 0 leads: it tells the others what to do and collects what they found.
class Loop {
 public:
  Loop(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options, const TokenData& data,
       const CheckpointInfo& start, Transport& transport)
      : plan_(plan),
        options_(options),
        info_(start),
        transport_(transport),
        enqueued_(count_enqueued(schedule, transport.worker() % plan.ranks())),
        worker_(plan, schedule, options, data, transport),
        switches_(involuntary_switches()) {
    worker_.set_seed(info_.seed);
    if (!options.resume.empty()) {
      load_checkpoint(find_checkpoint(options.resume), plan, worker_.executor());
    } else if (!options.weights.empty()) {
      load_weights(HuggingFaceWeights(options.weights, *plan.network.transformer), worker_.executor());
    } else {
      worker_.initialize(info_.seed);
    }
  }

  // Fills in what was measured, on worker 0.
  void lead(Trace& trace, const StepCallback& callback) {
    // The first step starts when everybody is there.
    for (int from = 1; from < transport_.workers(); ++from) {
      std::byte ready{};
      with_context(fmt::format("rank 0: start, from {}", worker_name(plan_, from)),
                   [&] { transport_.receive(from, control, bytes_of(ready)); });
    }
    std::int64_t saved = info_.step;
    bool stop = false, diverged = false;
    while (info_.step < options_.steps && !stop && !stop_requested()) {
      const Outcome outcome = lead_step(trace, callback);
      stop = outcome.stop != 0;
      diverged = !std::isfinite(trace.losses.back());
      if (diverged) break;
      const bool due = options_.checkpoint_interval > 0 && info_.step % options_.checkpoint_interval == 0;
      if (due) lead_checkpoint(saved);
    }
    const bool saved_before = diverged && options_.checkpoint_interval > 0 && saved == info_.step - 1;
    if (!diverged) lead_checkpoint(saved);
    tell({Order::finish, info_.step, 0});
    collect(trace);
    if (diverged) {
      trace.warnings.push_back(fmt::format(
          "the loss of step {} is {}: training stopped there{}", info_.step, trace.losses.back(),
          // A step's loss is that of the parameters before it.
          saved_before
              ? fmt::format("; the checkpoint of step {} gives this loss, so go on from an earlier one", info_.step - 1)
              : ""));
    }
  }

  void follow() {
    std::byte ready{};
    transport_.send(0, control, bytes_of(ready));
    for (;;) {
      Command command;
      waiting_for_worker_0([&] { transport_.receive(0, control, bytes_of(command)); });
      info_.step = command.step;
      if (command.order == Order::finish) break;
      if (command.order == Order::checkpoint) {
        checkpoint();
        continue;
      }
      Outcome outcome = run(command);
      transport_.send(0, control, bytes_of(outcome));
    }
    hand_in();
  }

 private:
  bool stop_requested() const { return options_.stop != nullptr && *options_.stop; }

  void tell(Command command) {
    for (int to = 1; to < transport_.workers(); ++to) transport_.send(to, control, bytes_of(command));
  }

  template <class Wait>
  void waiting_for_worker_0(Wait&& wait) {
    with_context(fmt::format("{}: between steps {} and {}, from rank 0", worker_name(plan_, transport_.worker()),
                             info_.step, info_.step + 1),
                 wait);
  }

  Outcome run(const Command& command) {
    const Clock::time_point origin =
        transport_.shared_clock() ? Clock::time_point(Clock::duration(command.start)) : Clock::now();
    const StepResult result = worker_.run_step(command.step, origin);
    return {result.loss_sum,
            result.gradient_norm,
            result.host_time / enqueued_,
            Clock::now().time_since_epoch().count(),
            stop_requested() ? 1 : 0,
            static_cast<std::int32_t>(std::min(involuntary_switches() - switches_, 1'000'000'000L))};
  }

  // Returns the worst of the workers' outcomes.
  Outcome lead_step(Trace& trace, const StepCallback& callback) {
    const Command command{Order::step, ++info_.step, Clock::now().time_since_epoch().count()};
    tell(command);
    Outcome total = run(command);
    for (int from = 1; from < transport_.workers(); ++from) {
      Outcome outcome;
      with_context(fmt::format("rank 0: end of step {}, from {}", info_.step, worker_name(plan_, from)),
                   [&] { transport_.receive(from, control, bytes_of(outcome)); });
      total.loss_sum += outcome.loss_sum;
      total.host_per_action = std::max(total.host_per_action, outcome.host_per_action);
      total.stop |= outcome.stop;
      if (transport_.shared_clock()) total.end = std::max(total.end, outcome.end);
      total.switches = std::max(total.switches, outcome.switches);
    }
    if (!transport_.shared_clock()) total.end = Clock::now().time_since_epoch().count();
    switches_seen_ = total.switches;

    StepReport report;
    report.step = info_.step;
    report.loss = total.loss_sum / static_cast<double>(plan_.schedule.microbatches * plan_.replicas());
    if (std::isnan(report.loss)) report.loss = std::abs(report.loss);  // "-nan" says nothing
    report.time = Seconds(std::chrono::duration<double>(Clock::duration(total.end - command.start)).count());
    report.tokens_per_second = static_cast<double>(trace.tokens_per_step) / report.time.value();
    report.gradient_norm = total.gradient_norm;
    report.learning_rate = learning_rate(options_.optimizer, info_.step, options_.steps);
    report.host_per_action = Seconds(total.host_per_action);
    trace.losses.push_back(report.loss);
    trace.step_times.push_back(report.time);
    if (callback) callback(report);
    return total;
  }

  void lead_checkpoint(std::int64_t& saved) {
    if (options_.checkpoint_directory.empty() || saved == info_.step) return;
    tell({Order::checkpoint, info_.step, 0});
    checkpoint();
    saved = info_.step;
  }

  void checkpoint() {
    // Replicas are equal but for state that they share.
    if (worker_place(plan_, transport_.worker()).replica > 0 && plan_.layout.zero == 0) return;
    with_context(fmt::format("{}: checkpoint of step {}", worker_name(plan_, transport_.worker()), info_.step), [&] {
      save_checkpoint(checkpoint_path(options_.checkpoint_directory, info_.step), plan_, info_, worker_.executor(),
                      transport_);
    });
  }

  // Actions of a step that compute or send.
  static double count_enqueued(const LoweredSchedule& schedule, int rank) {
    const auto& actions = schedule.ranks[static_cast<std::size_t>(rank)];
    const auto count = std::count_if(actions.begin(), actions.end(), [](const Action& action) {
      return is_compute(action.kind) || action.kind == ActionKind::send_forward ||
             action.kind == ActionKind::send_backward;
    });
    return static_cast<double>(std::max<std::ptrdiff_t>(count, 1));
  }

  struct Summary {
    std::int64_t peak_bytes = 0;
    double clock = 0;
    std::int64_t events = 0;
  };

  void hand_in() {
    const std::vector<TraceEvent> events = worker_.events();
    Summary summary{worker_.peak_bytes(), worker_.clock(), static_cast<std::int64_t>(events.size())};
    transport_.send(0, control, bytes_of(summary));
    if (!events.empty()) transport_.send(0, control, std::as_bytes(std::span(events)));
  }

  void collect(Trace& trace) {
    trace.events = worker_.events();
    trace.peak_memory.emplace_back(static_cast<double>(worker_.peak_bytes()));
    trace.clocks.push_back(worker_.clock());
    for (int from = 1; from < transport_.workers(); ++from) {
      Summary summary;
      transport_.receive(from, control, bytes_of(summary));
      trace.peak_memory.emplace_back(static_cast<double>(summary.peak_bytes));
      trace.clocks.push_back(summary.clock);
      if (summary.events == 0) continue;
      std::vector<TraceEvent> events(static_cast<std::size_t>(summary.events));
      transport_.receive(from, control, std::as_writable_bytes(std::span(events)));
      trace.events.insert(trace.events.end(), events.begin(), events.end());
    }
    if (*std::max_element(trace.clocks.begin(), trace.clocks.end()) == 0) trace.clocks.clear();
    // Each worker's are in order of time.
    std::stable_sort(trace.events.begin(), trace.events.end(), [](const TraceEvent& a, const TraceEvent& b) {
      return std::tuple(a.step, a.replica, a.rank, a.shard) < std::tuple(b.step, b.replica, b.rank, b.shard);
    });
    const auto steps = static_cast<double>(trace.step_times.size());
    if (options_.backend == Backend::cpu && switches_seen_ > 20 * steps) {
      trace.warnings.push_back(fmt::format(
          "other work ran on the cores: a rank lost its core {:.0f} times a step; measured times are too long",
          switches_seen_ / steps));
    }
  }

  const Plan& plan_;
  const TrainingOptions& options_;
  CheckpointInfo info_;  // of the last step that ran
  Transport& transport_;
  double enqueued_;
  Worker worker_;
  long switches_;
  std::int32_t switches_seen_ = 0;
};

std::string machine_name(Backend backend) {
  if (backend == Backend::cuda) return cuda::machine_name();
  const auto cluster = local_cpu();
  return fmt::format("{}, {}", cluster.device_types.front().name,
                     counted(static_cast<long long>(cluster.devices.size()), "core"));
}

Trace new_trace(const Plan& plan, Backend backend) {
  Trace trace;
  trace.source = backend == Backend::cuda ? "cuda" : "cpu";
  trace.tool_version = version;
  trace.machine = machine_name(backend);
  trace.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  trace.network = plan.network.name;
  trace.schedule = plan.schedule.name;
  trace.stages = static_cast<int>(plan.stages.size());
  trace.microbatches = plan.schedule.microbatches;
  trace.ranks = plan.ranks();
  trace.replicas = plan.replicas();
  trace.shards = plan.shards();
  trace.tokens_per_step = plan.batch.global * plan.batch.sequence;
  for (const PlanStage& stage : plan.stages) trace.stage_ranks.push_back(stage.rank);
  return trace;
}

// Under a launcher that binds processes, each sees only its own cores.
long core_count(const MpiSession* mpi) {
  return mpi != nullptr ? ::sysconf(_SC_NPROCESSORS_ONLN) : static_cast<long>(available_cores().size());
}

// "2 replicas x 2 shards x 3 ranks".
std::string grid(const Plan& plan) {
  const std::string shards = plan.shards() > 1 ? counted(plan.shards(), "shard") + " x " : "";
  return fmt::format("{} x {}{}", counted(plan.replicas(), "replica"), shards, counted(plan.ranks(), "rank"));
}

void check_processes(const Plan& plan, const MpiSession& mpi) {
  if (mpi.processes() == worker_count(plan)) return;
  throw device_error("the plan needs {} ({}), the launcher started {}", counted(worker_count(plan), "process"),
                     grid(plan), mpi.processes());
}

void check_devices(const Plan& plan, const TrainingOptions& options, const MpiSession* mpi) {
  check_layout(plan, plan.layout, "CPU");
  std::set<int> nodes;
  for (std::size_t row = 0; row < plan.devices.size(); ++row) {
    for (std::size_t rank = 0; rank < plan.devices[row].size(); ++rank) {
      const DeviceId id = plan.devices[row][rank];
      const DeviceType& type = plan.cluster.type_of(id);
      nodes.insert(plan.cluster.devices[static_cast<std::size_t>(id.value)].node);
      if (type.kind == DeviceKind::gpu) {
        throw device_error(
            "rank {} of replica {} needs device {}, a GPU ({}): the CPU backend trains on CPU cores; plan with a "
            "cluster of CPUs such as 'local-cpu', or run with the CUDA backend",
            rank, row / static_cast<std::size_t>(plan.shards()), id.value, type.name);
      }
    }
  }
  if (mpi != nullptr) check_processes(plan, *mpi);
  if (options.oversubscribe) return;
  if (mpi == nullptr && nodes.size() > 1) {
    throw device_error(
        "the plan's devices are on {} nodes: start a process a rank there with mpirun, or allow to "
        "oversubscribe this machine",
        nodes.size());
  }
  const int local = mpi != nullptr ? mpi->local_processes() : worker_count(plan);
  if (local > core_count(mpi)) {
    throw device_error("the plan needs {} ({}), this machine offers {}: allow to oversubscribe, or plan for fewer",
                       counted(local, "CPU core"), grid(plan), core_count(mpi));
  }
}

// Finds out before anything starts that memory will run out.
void check_memory(const Plan& plan, const MpiSession* mpi) {
  const LoweredSchedule schedule = plan.lowered();
  const Cluster machine = local_cpu();
  const double available = machine.device_types.front().memory.value() * static_cast<double>(machine.devices.size());
  double total = 0, largest = 0;
  int where = 0;
  for (int rank = 0; rank < plan.ranks(); ++rank) {
    const auto bytes = static_cast<double>(memory_need(plan, schedule, rank).total());
    if (bytes > largest) where = rank;
    largest = std::max(largest, bytes);
    total += bytes * static_cast<double>(plan.devices.size());
  }
  if (mpi != nullptr && mpi->local_processes() < mpi->processes()) total = largest;  // the others are on other hosts
  if (total <= available) return;
  const MemoryNeed need = memory_need(plan, schedule, where);
  const auto text = [](std::int64_t bytes) { return to_string(Bytes(static_cast<double>(bytes))); };
  throw device_error(
      "the plan needs {} of memory, this machine has {}; the largest share is rank {}'s: {} (weights {}, gradients {}, "
      "optimizer state {}, activations {})",
      to_string(Bytes(total)), to_string(Bytes(available)), where, text(need.total()), text(need.weights),
      text(need.gradients), text(need.optimizer_state), text(need.activations));
}

void train_in_threads(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options,
                      const TransportOptions& transport_options, const TokenData& data, const CheckpointInfo& start,
                      const StepCallback& callback, Trace& trace) {
  const int workers = worker_count(plan);
  const std::vector<int> cores = available_cores();
  // A thread that feeds a GPU waits most of the time.
  const bool pin = options.backend == Backend::cpu && options.pin && static_cast<int>(cores.size()) >= workers;
  ChannelNetwork network(workers, transport_options);
  std::mutex mutex;
  std::exception_ptr first_failure;
  std::vector<std::thread> threads;
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] {
      try {
        if (pin) pin_to_core(cores[static_cast<std::size_t>(worker)]);
        const auto transport = network.endpoint(worker);
        Loop loop(plan, schedule, options, data, start, *transport);
        if (worker == 0) {
          loop.lead(trace, callback);
        } else {
          loop.follow();
        }
      } catch (...) {
        // Those that follow fail because this one did.
        const std::lock_guard lock(mutex);
        if (!first_failure) first_failure = std::current_exception();
        network.abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first_failure) std::rethrow_exception(first_failure);
}

void train_in_processes(const Plan& plan, const LoweredSchedule& schedule, const TrainingOptions& options,
                        const TransportOptions& transport_options, const TokenData& data, const CheckpointInfo& start,
                        const StepCallback& callback, MpiSession& mpi, Trace& trace) {
  const std::vector<int> cores = available_cores();
  const bool pin = options.backend == Backend::cpu && options.pin;
  if (pin && static_cast<int>(cores.size()) >= mpi.local_processes()) {
    pin_to_core(cores[static_cast<std::size_t>(mpi.local_process())]);
  }
  const auto transport = mpi.endpoint(transport_options);
  auto loop = std::make_unique<Loop>(plan, schedule, options, data, start, *transport);
  try {
    if (mpi.process() == 0) {
      loop->lead(trace, callback);
    } else {
      loop->follow();
    }
  } catch (...) {
    // All processes are about to be aborted, and the launcher gives this one a second to say why. Taking down what
    // waits for dead peers can last longer, so it is left to the end of the process.
    static_cast<void>(loop.release());
    throw;
  }
}

}  // namespace

void check_runnable(const Plan& plan, const TrainingOptions& options, const MpiSession* mpi) {
  check_trainable(plan.network);
  if (options.backend == Backend::cuda) {
    validate(plan, "plan");
    if (mpi != nullptr) check_processes(plan, *mpi);
    return cuda::check_runnable(plan, mpi != nullptr ? mpi->process() : -1, options.deterministic);
  }
  if (plan.precision != DataType::fp32) {
    throw bad_input("precision: the CPU backend trains in fp32, the plan says {}", name(plan.precision));
  }
  validate(plan, "plan");
  check_devices(plan, options, mpi);
  check_memory(plan, mpi);
}

Trace train(const Plan& plan, const TrainingOptions& options, const StepCallback& callback, MpiSession* mpi) {
  check_runnable(plan, options, mpi);
  const TokenData data(options.data, plan.network.transformer->vocabulary, plan.batch.sequence);
  // Finds what is wrong with the file before memory is taken for the network.
  if (!options.weights.empty()) HuggingFaceWeights(options.weights, *plan.network.transformer);
  CheckpointInfo start{0, options.seed.value_or(1)};
  if (!options.resume.empty()) {
    const auto path = find_checkpoint(options.resume);
    start = read_checkpoint_info(path, plan);
    if (options.seed && *options.seed != start.seed) {
      throw bad_input("{}: was trained with seed {}, asked for {}: leave the seed out to go on", path.string(),
                      start.seed, *options.seed);
    }
    if (start.step >= options.steps) {
      throw bad_input("{}: is at step {} already, asked to train up to step {}", path.string(), start.step,
                      options.steps);
    }
  }
  // Callers are the parallelism; more threads inside a product would only compete.
  kernels::cpu::set_blas_threads_per_caller(1);
  const bool on_gpus = options.backend == Backend::cuda;
  const LoweredSchedule schedule = on_gpus ? cuda::lowered(plan, mpi != nullptr) : plan.lowered();
  TransportOptions transport;
  // All messages of a step between two ranks fit, so that a send never waits: what the checker proved holds.
  transport.capacity = plan.schedule.microbatches * static_cast<int>(plan.stages.size());
  transport.peer_timeout = options.peer_timeout;
  transport.terminate = options.terminate;

  Trace trace = new_trace(plan, options.backend);
  const int local = mpi != nullptr ? mpi->local_processes() : worker_count(plan);
  if (options.backend == Backend::cpu && local > core_count(mpi)) {
    trace.warnings.push_back(fmt::format("{} share {}: measured times are not those of the plan's devices",
                                         counted(local, "rank"), counted(core_count(mpi), "core")));
  }
  if (mpi != nullptr) {
    train_in_processes(plan, schedule, options, transport, data, start, callback, *mpi, trace);
  } else {
    train_in_threads(plan, schedule, options, transport, data, start, callback, trace);
  }
  return trace;
}

}  // namespace stagecraft
