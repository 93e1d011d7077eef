// Ranks as processes, under the launcher that CMake found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

#include "tests/runtime/plans.hpp"
#include "tests/runtime/temporary_folder.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string output;  // stdout and stderr
};

Outcome run(const std::string& command) {
  Outcome outcome;
  FILE* pipe = popen(("timeout 100 " + command + " 2>&1 < /dev/null").c_str(), "r");
  std::array<char, 4096> buffer;
  for (std::size_t count; (count = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

// Root needs to be allowed, and so do more processes than cores. MPI's libraries leak.
std::string launch(int processes) {
  return std::string(
             "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
             "ASAN_OPTIONS=detect_leaks=0 " STAGECRAFT_MPIEXEC " --oversubscribe -n ") +
         std::to_string(processes) + " ";
}

class MpiTest : public testing::Test {
 protected:
  std::string program(const std::string& arguments) {
    return STAGECRAFT_MPI_TRAIN " " + folder_.file("text.txt", sample_text()).string() + " " + arguments;
  }
  TemporaryFolder folder_;
};

TEST_F(MpiTest, ProcessesGiveTheLossesOfThreadsBitForBit) {
  for (const std::string arguments : {"1 2", "2 2", "1 1,2,3", "1x2 2"}) {
    const Outcome threads = run(program(arguments));
    ASSERT_EQ(threads.exit_code, 0) << threads.output;
    ASSERT_THAT(threads.output, HasSubstr("loss 0x1."));
    const Outcome processes = run(launch(arguments == "1 2" ? 2 : 4) + program(arguments));
    EXPECT_EQ(processes.exit_code, 0);
    EXPECT_EQ(processes.output, threads.output);
  }
}

TEST_F(MpiTest, AnotherNumberOfProcessesThanThePlanNeedsIsRefused) {
  const Outcome outcome = run(launch(2) + program("1 1,2,3"));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.output, HasSubstr("the plan needs 4 processes"));
}

TEST_F(MpiTest, AKilledProcessEndsTheRunWithRankAndActionNamed) {
  const Outcome outcome = run(launch(2) + program("1 2 kill 1"));
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.exit_code, 124) << "hung";
  EXPECT_THAT(outcome.output, testing::ContainsRegex("error: rank 0: .*(from|to) (rank|worker) 1: told to terminate"));
}

TEST_F(MpiTest, ASilentProcessEndsTheRunAfterThePeerTimeout) {
  const Outcome outcome = run(launch(2) + program("1 2 stop 1"));
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_THAT(
      outcome.output,
      testing::ContainsRegex("error: rank 0: .*from (rank|worker) 1: no message within 3 s; has its process died"));
}

// With a GPU each. What a machine with fewer cannot do, it says.
class MpiOnTwoGpus : public MpiTest {
 protected:
  void SetUp() override {
    const Outcome outcome = run(program("2 - cuda"));
    if (outcome.exit_code == 4) GTEST_SKIP() << outcome.output;
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
};

TEST_F(MpiOnTwoGpus, ProcessesGiveTheLossesOfThreads) {
  for (const std::string arguments : {"2 - cuda", "1x2 - cuda", "1 2 cuda gpipe", "1 2 cuda 1f1b", "1 2 cuda zb-h1"}) {
    SCOPED_TRACE(arguments);
    const Outcome threads = run(program(arguments));
    ASSERT_EQ(threads.exit_code, 0) << threads.output;
    ASSERT_THAT(threads.output, HasSubstr("loss 0x1."));
    const Outcome processes = run(launch(2) + program(arguments));
    EXPECT_EQ(processes.exit_code, 0);
    EXPECT_EQ(processes.output, threads.output);
  }
}

TEST_F(MpiOnTwoGpus, AKilledProcessEndsTheRunWithRankAndActionNamed) {
  for (const std::string arguments : {"2 - cuda kill 1", "1x2 - cuda kill 1", "1 2 cuda kill 1"}) {
    const Outcome outcome = run(launch(2) + program(arguments));
    EXPECT_NE(outcome.exit_code, 0);
    EXPECT_NE(outcome.exit_code, 124) << "hung";
    EXPECT_THAT(outcome.output, testing::ContainsRegex("error: rank 0(, shard 0)?: .*told to terminate"));
  }
}

TEST_F(MpiOnTwoGpus, ASilentProcessEndsTheRunAfterThePeerTimeout) {
  for (const std::string arguments : {"2 - cuda stop 1", "1x2 - cuda stop 1", "1 2 cuda stop 1"}) {
    const Outcome outcome = run(launch(2) + program(arguments));
    EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
    EXPECT_THAT(outcome.output, testing::ContainsRegex("error: rank 0(, shard 0)?: .*within 10 s"));
  }
}

}  // namespace
}  // namespace stagecraft
