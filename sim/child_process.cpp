#include "sim/child_process.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string_view>

#include "models/error.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t message_size = 1000;

// What a failing child leaves behind.
struct Failure {
  bool failed;
  ErrorKind kind;
  char message[message_size];  // cut if longer
};

void note(Failure& failure, ErrorKind kind, std::string_view message) {
  failure.failed = true;
  failure.kind = kind;
  std::memcpy(failure.message, message.data(), std::min(message.size(), message_size - 1));
}

void run_guarded(const std::function<void()>& work, Failure& failure) {
  try {
    work();
  } catch (const Error& error) {
    note(failure, error.kind(), error.what());
  } catch (const std::exception& error) {
    note(failure, ErrorKind::internal, error.what());
  }
}

}  // namespace

SharedMemory::SharedMemory(std::size_t bytes) : bytes_(std::max<std::size_t>(bytes, 1)) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::internal, fmt::format("{} bytes of shared memory: {}", bytes_, std::strerror(errno)));
  }
  data_ = static_cast<std::byte*>(memory);
}

SharedMemory::~SharedMemory() { munmap(data_, bytes_); }

void run_in_child(const char* what, const std::function<void()>& work) {
  const SharedMemory memory(sizeof(Failure));
  Failure& failure = *reinterpret_cast<Failure*>(memory.data());
  std::fflush(nullptr);  // or the child may write what the parent has buffered
  const pid_t child = fork();
  if (child < 0) throw Error(ErrorKind::internal, fmt::format("{}: fork: {}", what, std::strerror(errno)));
  if (child == 0) {
    run_guarded(work, failure);
    _exit(0);  // without destructors and buffers that belong to the parent
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Error(ErrorKind::internal, fmt::format("{}: waitpid: {}", what, std::strerror(errno)));
  }
  if (failure.failed) throw Error(failure.kind, failure.message);
  if (WIFSIGNALED(status)) {
    throw Error(ErrorKind::internal, fmt::format("{}: the child process died of signal {} ({})", what, WTERMSIG(status),
                                                 strsignal(WTERMSIG(status))));
  }
  if (WEXITSTATUS(status) != 0) {
    throw Error(ErrorKind::internal,
                fmt::format("{}: the child process ended with status {}", what, WEXITSTATUS(status)));
  }
}

}  // namespace stagecraft
