// What the MPI tests start under mpirun: trains a tiny network and prints the losses, exactly.
//
//   mpi_train DATA REPLICAS CUT[,CUT...] [kill|stop PROCESS]
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
    const int replicas = std::stoi(argv[2]);
    const Plan plan = make_plan(tiny_gpt(true), {.cuts = numbers(argv[3]), .microbatches = 4, .replicas = replicas});
    TrainingOptions options;
    options.steps = 5;
    options.data = {argv[1]};
    options.oversubscribe = true;
    options.peer_timeout = std::chrono::seconds(60);
    options.terminate = &terminate;
    if (argc == 6) {
      options.steps = 100'000'000;
      options.peer_timeout = std::chrono::seconds(3);
      if (mpi && mpi->process() == std::stoi(argv[5])) {
        const int signal_number = std::string(argv[4]) == "kill" ? SIGKILL : SIGSTOP;
        std::thread([signal_number] {
          std::this_thread::sleep_for(std::chrono::seconds(1));
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
