#include "sim/child_process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "models/error.hpp"

namespace stagecraft {
namespace {

// The error that leaves run_in_children().
Error error_of(std::size_t count, const std::function<void(std::size_t)>& work) {
  try {
    run_in_children("the test", count, work);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::internal, "none"};
}

TEST(ChildProcesses, WorkEachInAProcessOfItsOwn) {
  constexpr std::size_t count = 9;
  const SharedMemory memory(count * sizeof(pid_t));
  auto* const processes = reinterpret_cast<pid_t*>(memory.data());
  int here = 0;
  run_in_children("the test", count, [&](std::size_t i) {
    processes[i] = getpid();
    ++here;
  });
  EXPECT_EQ(here, 0) << "only shared memory remains";
  std::vector<pid_t> all(processes, processes + count);
  EXPECT_THAT(all, testing::Each(testing::AllOf(testing::Gt(0), testing::Ne(getpid()))));
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
}

TEST(ChildProcesses, ThrowTheErrorOfTheLowestNumberThatFails) {
  const Error error = error_of(6, [](std::size_t i) {
    if (i >= 3) throw bad_input("number {} fails", i);
  });
  EXPECT_EQ(error.kind(), ErrorKind::bad_input);
  EXPECT_STREQ(error.what(), "number 3 fails");
}

TEST(ChildProcesses, DieWithTheProcessThatStartedThem) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t middle = fork();
  ASSERT_GE(middle, 0);
  if (middle == 0) {
    run_in_children("the test", 1, [&](std::size_t) {
      const bool told = write(ends[1], "!", 1) == 1;
      sleep(told ? 60 : 0);
    });
    _exit(0);
  }
  close(ends[1]);
  char begun = 0;
  EXPECT_EQ(read(ends[0], &begun, 1), 1);
  kill(middle, SIGKILL);
  waitpid(middle, nullptr, 0);
  // The pipe ends when the last process that could write to it is gone.
  pollfd end{ends[0], POLLIN, 0};
  EXPECT_EQ(poll(&end, 1, 20'000), 1);
  EXPECT_EQ(read(ends[0], &begun, 1), 0);
  close(ends[0]);
}

TEST(ChildProcesses, BeginNothingOnceAnErrorIsKnown) {
  const std::size_t at_once = std::max(1U, std::thread::hardware_concurrency());
  const SharedMemory begun(2 * at_once);
  const Error error = error_of(2 * at_once, [&](std::size_t i) {
    begun.data()[i] = std::byte{1};
    throw bad_input("number {} fails", i);
  });
  EXPECT_STREQ(error.what(), "number 0 fails");
  EXPECT_EQ(begun.data()[0], std::byte{1});
  EXPECT_EQ(begun.data()[2 * at_once - 1], std::byte{0});
}

TEST(ChildProcesses, ThatDieAreInternalErrorsWithTheirSignal) {
  const Error error = error_of(2, [](std::size_t i) {
    if (i == 1) std::raise(SIGKILL);
  });
  EXPECT_EQ(error.kind(), ErrorKind::internal);
  EXPECT_THAT(error.what(), testing::HasSubstr("the test: the child process died of signal 9"));
}

TEST(ChildProcesses, ThatExitEarlyAreInternalErrorsWithTheirStatus) {
  const Error error = error_of(1, [](std::size_t) { _exit(3); });
  EXPECT_EQ(error.kind(), ErrorKind::internal);
  EXPECT_THAT(error.what(), testing::HasSubstr("the test: the child process ended with status 3"));
}

}  // namespace
}  // namespace stagecraft
