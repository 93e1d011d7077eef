// What the harnesses of all devices share on the command line: PROGRAM test|grad|perf [--op NAME].
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/harness/harness.hpp"

namespace stagecraft::kernels {

struct CommandLine {
  std::string mode;  // test, grad or perf
  std::string op;    // empty: all
  bool selects(const std::string& name) const { return op.empty() || op == name; }
};

// Nothing if the words are not such a command line.
inline std::optional<CommandLine> parse_command_line(const std::vector<std::string>& words) {
  const bool with_op = words.size() == 3 && words[1] == "--op";
  if (words.size() != 1 && !with_op) return std::nullopt;
  if (!std::set<std::string>{"test", "grad", "perf"}.contains(words[0])) return std::nullopt;
  return CommandLine{.mode = words[0], .op = with_op ? words[2] : ""};
}

// Returns the exit code.
template <class Cases>
int print_usage(const char* program, const Cases& cases) {
  fmt::print(stderr, "usage: {} test|grad|perf [--op NAME]\nNAME is one of:", program);
  std::set<std::string> ops;
  for (const auto& test : cases) ops.insert(test.op);
  for (const std::string& op : ops) fmt::print(stderr, " {}", op);
  fmt::print(stderr, "\n");
  return 2;
}

// Prints a line a case and returns the exit code; nothing if no case has the op.
template <class Cases, class Check>
std::optional<int> run_checks(const CommandLine& command, const Cases& cases, Check check_one) {
  constexpr std::uint64_t seed = 1;
  int run = 0;
  int failed = 0;
  for (const auto& test : cases) {
    if (!command.selects(test.op)) continue;
    const Outcome outcome = check_one(test, seed);
    ++run;
    failed += outcome.passed ? 0 : 1;
    fmt::print("{:4} {:<66} error {:8.2e}  {}\n", outcome.passed ? "ok" : "FAIL", test.name, outcome.error,
               outcome.message);
  }
  if (run == 0) return std::nullopt;
  fmt::print("{} of {} passed\n", run - failed, run);
  return failed == 0 ? 0 : 1;
}

}  // namespace stagecraft::kernels
