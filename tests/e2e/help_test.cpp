#include <gtest/gtest.h>

#include <sstream>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

constexpr const char* commands[] = {
    "plan",         "simulate",     "profile",   "run",           "compare",           "report",   "export",   "show",
    "show network", "show cluster", "show plan", "show schedule", "compare schedules", "validate", "calibrate"};

TEST(Help, ShowsExamplesForEveryCommand) {
  const TemporaryFolder folder;
  for (const std::string command : commands) {
    const Outcome outcome = shell("stagecraft " + command + " --help", folder.path());
    EXPECT_EQ(outcome.exit, 0) << command;
    EXPECT_NE(outcome.out.find("Examples:\n  stagecraft "), std::string::npos) << command;
    EXPECT_EQ(outcome.err, "") << command;
  }
}

TEST(Help, FitsTheTerminalWithoutColours) {
  const TemporaryFolder folder;
  for (const std::string command : commands) {
    const std::string text = shell("stagecraft " + command + " --help", folder.path()).out;
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << command << ": " << line;
  }
}

TEST(Help, KnowsItsVersion) {
  const TemporaryFolder folder;
  EXPECT_EQ(shell("stagecraft --version", folder.path()).out, "stagecraft 0.1.0\n");
}

TEST(Output, SaysWhenStandardOutputIsFull) {
  const TemporaryFolder folder;
  const Outcome outcome = shell("stagecraft show network gpt2 > /dev/full", folder.path());
  EXPECT_EQ(outcome.exit, 2);
  EXPECT_EQ(outcome.err, "error: standard output: cannot be written: No space left on device\n");
}

}  // namespace
}  // namespace stagecraft
