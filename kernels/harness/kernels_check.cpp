// kernels_check test|grad|perf [--op NAME]: the harness on the command line. Exit code 0: all right, 1: a check failed,
// 2: wrong arguments.
#include "kernels/cpu/linear.hpp"
#include "kernels/harness/cases.hpp"
#include "kernels/harness/command_line.hpp"

namespace {

using namespace stagecraft::kernels;

std::optional<int> run_perf(const CommandLine& command) {
  cpu::set_blas_threads_per_caller(1);
  const Peaks peaks = measure_peaks(
      [](float* c, const float* a, const float* b, std::int64_t n) { cpu::linear_forward(c, a, b, nullptr, n, n, n); });
  fmt::print("one core: sgemm {:.1f} GFLOP/s, copy {:.1f} GB/s\n", peaks.flops_per_s * 1e-9, peaks.bytes_per_s * 1e-9);
  fmt::print("{:<66} {:>10} {:>8} {:>7} {:>9}\n", "case", "median us", "GFLOP/s", "GB/s", "of floor");
  std::optional<int> code;
  for (const Case& test : perf_cases()) {
    if (!command.selects(test.op)) continue;
    code = 0;
    const Timing timing = measure(test, peaks);
    fmt::print("{:<66} {:>10.1f} {:>8.1f} {:>7.1f} {:>8.0f}%\n", test.name, timing.median_s * 1e6,
               timing.flops_per_s * 1e-9, timing.bytes_per_s * 1e-9, timing.share_of_floor * 100.0);
  }
  return code;
}

std::optional<int> run(const CommandLine& command) {
  if (command.mode == "test")
    return run_checks(command, test_cases(), [](const Case& c, auto s) { return check(c, s); });
  if (command.mode == "grad") return run_checks(command, gradient_cases(), check_gradient);
  return run_perf(command);
}

}  // namespace

int main(int argc, char** argv) {
  const auto command = parse_command_line({argv + 1, argv + argc});
  const std::optional<int> code = command ? run(*command) : std::nullopt;
  return code ? *code : print_usage("kernels_check", test_cases());
}
