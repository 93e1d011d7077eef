// kernels_check test|grad|perf [--op NAME]: the harness on the command line. Exit code 0: all right, 1: a check failed,
// 2: wrong arguments.
#include <fmt/format.h>

#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "kernels/cpu/linear.hpp"
#include "kernels/harness/cases.hpp"

namespace {

using namespace stagecraft::kernels;

constexpr std::uint64_t seed = 1;

struct Options {
  std::string mode;
  std::string op;  // empty: all
};

int usage() {
  fmt::print(stderr, "usage: kernels_check test|grad|perf [--op NAME]\nNAME is one of:");
  std::set<std::string> ops;
  for (const Case& test : test_cases()) ops.insert(test.op);
  for (const std::string& op : ops) fmt::print(stderr, " {}", op);
  fmt::print(stderr, "\n");
  return 2;
}

bool selected(const Options& options, const std::string& op) { return options.op.empty() || options.op == op; }

// Prints a line a case and returns the exit code.
template <typename Cases, typename Check>
int run_checks(const Options& options, const Cases& cases, Check check_one) {
  int run = 0;
  int failed = 0;
  for (const auto& test : cases) {
    if (!selected(options, test.op)) continue;
    const Outcome outcome = check_one(test, seed);
    ++run;
    failed += outcome.passed ? 0 : 1;
    fmt::print("{:4} {:<66} error {:8.2e}  {}\n", outcome.passed ? "ok" : "FAIL", test.name, outcome.error,
               outcome.message);
  }
  if (run == 0) return usage();
  fmt::print("{} of {} passed\n", run - failed, run);
  return failed == 0 ? 0 : 1;
}

int run_perf(const Options& options) {
  cpu::set_blas_threads_per_caller(1);
  const Peaks peaks = measure_peaks(
      [](float* c, const float* a, const float* b, std::int64_t n) { cpu::linear_forward(c, a, b, nullptr, n, n, n); });
  fmt::print("one core: sgemm {:.1f} GFLOP/s, copy {:.1f} GB/s\n", peaks.flops_per_s * 1e-9, peaks.bytes_per_s * 1e-9);
  fmt::print("{:<66} {:>10} {:>8} {:>7} {:>9}\n", "case", "median us", "GFLOP/s", "GB/s", "of floor");
  bool any = false;
  for (const Case& test : perf_cases()) {
    if (!selected(options, test.op)) continue;
    any = true;
    const Timing timing = measure(test, peaks);
    fmt::print("{:<66} {:>10.1f} {:>8.1f} {:>7.1f} {:>8.0f}%\n", test.name, timing.median_s * 1e6,
               timing.flops_per_s * 1e-9, timing.bytes_per_s * 1e-9, timing.share_of_floor * 100.0);
  }
  return any ? 0 : usage();
}

int run(const Options& options) {
  if (options.mode == "test") return run_checks(options, test_cases(), check);
  if (options.mode == "grad") return run_checks(options, gradient_cases(), check_gradient);
  if (options.mode == "perf") return run_perf(options);
  return usage();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool with_op = arguments.size() == 3 && arguments[1] == "--op";
  if (arguments.size() != 1 && !with_op) return usage();
  return run({.mode = arguments[0], .op = with_op ? arguments[2] : ""});
}
