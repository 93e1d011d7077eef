// What the MPI tests start under mpirun: trains a tiny network and prints the losses, exactly.
//
//   mpi_train DATA REPLICAS[xSHARDS] CUT[,CUT...]|- [cuda [SCHEDULE]] [kill|stop PROCESS]
// With `kill` or `stop` that process kills or stops itself in the middle of the run.
#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include "runtime/trainer.hpp"
#include "runtime/transport.hpp"
#include "tests/runtime/plans.hpp"

namespace {

std::atomic<bool> terminate{false};

void on_terminate(int) { terminate = true; }

std::vector<std::int64_t> numbers(const std::string& text) {
  std::vector<std::int64_t> list;
  if (text == "-") return list;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');) list.push_back(std::stoll(word));
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace stagecraft;
  if (argc < 4) return 2;
  signal(SIGTERM, on_terminate);
  std::optional<MpiSession> mpi;
  if (MpiSession::launched()) mpi.emplace();
  try {
    std::vector<std::string> arguments(argv + 2, argv + argc);
    const auto take = [&] {
      std::string first = arguments.empty() ? "" : arguments.front();
      if (!arguments.empty()) arguments.erase(arguments.begin());
      return first;
    };
    const std::string width = take();
    const int shards = width.find('x') == std::string::npos ? 1 : std::stoi(width.substr(width.find('x') + 1));
    PlanShape shape{.cuts = numbers(take()), .microbatches = 4, .replicas = std::stoi(width)};
    shape.tensor = shards;
    shape.sequence_parallel = shards > 1;
    TrainingOptions options;
    options.steps = 5;
    options.data = {argv[1]};
    options.oversubscribe = true;
    options.peer_timeout = std::chrono::seconds(60);
    options.terminate = &terminate;
    const bool on_gpus = !arguments.empty() && arguments.front() == "cuda";
    if (on_gpus) {
      take();
      options.backend = Backend::cuda;
      options.algorithm_cache = std::string(argv[1]) + ".algorithms";  // the same products, the same bits
      if (arguments.size() % 2 == 1) shape.schedule = take();
    }
    Plan plan = make_plan(tiny_gpt(true), shape);
    if (on_gpus) plan.cluster.device_types.front().kind = DeviceKind::gpu;
    if (arguments.size() == 2) {
      const std::string what = take();
      options.steps = 100'000'000;
      options.peer_timeout = std::chrono::seconds(on_gpus ? 10 : 3);
      if (mpi && mpi->process() == std::stoi(take())) {
        const int signal_number = what == "kill" ? SIGKILL : SIGSTOP;
        // GPUs take their time to start.
        std::thread([signal_number, on_gpus] {
          std::this_thread::sleep_for(std::chrono::seconds(on_gpus ? 8 : 1));
          raise(signal_number);
        }).detach();
      }
    }
    const Trace trace = train(plan, options, {}, mpi ? &*mpi : nullptr);
    for (const double loss : trace.losses) fmt::print("loss {:a}\n", loss);
    if (!mpi || mpi->process() == 0) fmt::print("events {}\n", trace.events.size());
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    if (mpi) mpi->abort(static_cast<int>(error.kind()));
    return static_cast<int>(error.kind());
  }
  return 0;
}
